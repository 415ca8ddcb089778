"""A stand-in for TransNet V2 as an ONNX file: the same inputs and outputs; likely where the mean colour jumps."""

import numpy as np
import onnx


def jump_network(path, windows=2):
    """Takes so many windows at a time, as it was exported; the frame before a jump is the likely one."""
    make, numpy_helper = onnx.helper, onnx.numpy_helper

    def constant(name, values, dtype=np.int64):
        return numpy_helper.from_array(np.array(values, dtype), name)

    nodes = [
        make.make_node("Cast", ["input"], ["pixels"], to=onnx.TensorProto.FLOAT),
        make.make_node("ReduceMean", ["pixels", "picture"], ["means"], keepdims=0),  # (windows, 100)
        make.make_node("Slice", ["means", "zero", "last", "one"], ["before"]),
        make.make_node("Slice", ["means", "one", "end", "one"], ["after"]),
        make.make_node("Sub", ["after", "before"], ["change"]),
        make.make_node("Abs", ["change"], ["size"]),
        make.make_node("Concat", ["size", "nothing"], ["all"], axis=1),
        make.make_node("Div", ["all", "scale"], ["share"]),
        make.make_node("Unsqueeze", ["share", "two"], ["output"]),
    ]
    graph = make.make_graph(
        nodes,
        "jump",
        [make.make_tensor_value_info("input", onnx.TensorProto.UINT8, [windows, 100, 27, 48, 3])],
        [make.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [windows, 100, 1])],
        [
            constant("picture", [2, 3, 4]),
            constant("zero", [0, 0]),
            constant("last", [windows, 99]),
            constant("end", [windows, 100]),
            constant("one", [0, 1]),
            constant("two", [2]),
            constant("nothing", [[0]] * windows, np.float32),
            constant("scale", [100], np.float32),
        ],
    )
    # Slices take starts, ends, axes: both axes, from (0, 0) or (0, 1).
    graph.node[2].input[3] = graph.node[3].input[3] = "axes"
    graph.initializer.append(constant("axes", [0, 1]))
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(path))
