"""Training, sampling and evaluation of networks; may import models, torch, numpy, pyarrow and safetensors."""
