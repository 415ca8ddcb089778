// Conditions on columns, and the order.
import {ask, find, make, options, telling, text} from "./api.js";
import {choose, state} from "./app.js";

const OPERATORS = ["=", "!=", "<", "<=", ">", ">=", "contains", "is unknown", "is known"];
const FOR_TEXT = ["=", "!=", "contains", "is unknown", "is known"];
const FOR_LISTS = ["contains", "is unknown", "is known"];
const columns = () => state.schema.tables.clips;

function operatorsOf(type) {
  if (type.endsWith("[]")) return FOR_LISTS;
  if (type === "VARCHAR") return FOR_TEXT;
  return type === "BOOLEAN" ? ["=", "is unknown", "is known"] : OPERATORS.filter((each) => each !== "contains");
}

export function showFilters() {
  const {filters, query, gate, change} = state.selection;
  const lines = filters.map((each, at) => line(
    `${each.column} ${each.operator} ${each.operator.startsWith("is") ? "" : each.value}`,
    () => choose({filters: filters.filter((_, other) => other !== at)})));
  if (query) lines.push(line("clips of the SQL query", () => choose({query: null})));
  if (gate && change) lines.push(line(`${change} by the gate that is tried`, () => choose({change: null})));
  find("filters").replaceChildren(...lines);
}

function line(said, remove) {
  return make("li", {}, make("span", {textContent: said}),
    make("button", {type: "button", textContent: "×", ariaLabel: `Remove: ${said}`, onclick: remove}));
}

async function chooseColumn() {
  const name = find("filter-column").value;
  const {type} = columns().find((each) => each.name === name);
  options(find("filter-operator"), operatorsOf(type).map((each) => [each, each]));
  find("filter-value").value = "";
  find("filter-said").textContent = type;
  find("filter-values").replaceChildren();
  chooseOperator();
  await telling(async () => {
    const held = await ask("column", {name});
    if (find("filter-column").value !== name) return;
    const unknown = held.unknown ? `, ${held.unknown} unknown` : "";
    if (held.range) {
      const [least, middle, greatest] = held.range.map(text);
      find("filter-said").textContent = `${type}, ${least} to ${greatest}, median ${middle}${unknown}`;
    } else {
      find("filter-said").textContent = `${type}${unknown}`;
      find("filter-values").replaceChildren(...held.common.map(([value, count]) =>
        make("option", {value, label: `${count} clips`})));
    }
  });
}

function chooseOperator() {
  find("filter-value").disabled = find("filter-operator").value.startsWith("is ");
}

export function startFilters() {
  const names = columns().map((each) => [each.name, each.name]);
  options(find("filter-column"), names, names.some(([name]) => name === "verdict") ? "verdict" : undefined);
  options(find("order"), [["", "as they lie"], ...names], state.selection.order ?? "");
  find("filter-column").onchange = chooseColumn;
  find("filter-operator").onchange = chooseOperator;
  find("filter").onsubmit = (event) => {
    event.preventDefault();
    const filter = {
      column: find("filter-column").value, operator: find("filter-operator").value, value: find("filter-value").value,
    };
    choose({filters: [...state.selection.filters, filter]});
  };
  const order = () => choose({order: find("order").value || null, descending: find("descending").checked});
  find("order").onchange = order;
  find("descending").onchange = order;
  chooseColumn();
}
