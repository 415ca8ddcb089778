// A gate that is not in force: what it would keep, and which clips it would drop or bring back.
import {ask, find, make, number, options, telling} from "./api.js";
import {choose, state} from "./app.js";

const SHOWN = ["kept then", "newly dropped", "newly kept", "unknown to it (NULL)"];

export function startGate() {
  const gates = state.schema.gates;
  options(find("gate-instead"), [["", "none: beside those in force"], ...gates.map((each) => [each.name, each.name])]);
  find("gate-instead").onchange = () => {
    const gate = gates.find((each) => each.name === find("gate-instead").value);
    if (!gate) return;
    find("gate-where").value = gate.where;
    find("gate-unknown").value = gate.unknown;
  };
  find("gate").onsubmit = (event) => {
    event.preventDefault();
    tried();
  };
  find("no-gate").onclick = () => {
    find("gate-said").replaceChildren();
    find("no-gate").hidden = true;
    choose({gate: null, change: null});
  };
}

async function tried() {
  const gate = {
    where: find("gate-where").value, unknown: find("gate-unknown").value, instead: find("gate-instead").value || null,
  };
  await telling(async () => {
    find("gate-said").replaceChildren("…");
    const found = await ask("try", {gate}).catch((error) => {
      find("gate-said").replaceChildren();
      throw error;
    });
    find("no-gate").hidden = false;
    const rows = Object.entries(found).map(([name, count]) => make("tr", {},
      make("th", {scope: "row"}, SHOWN.includes(name) && count.clips
        ? make("button", {type: "button", textContent: name, onclick: () => choose({gate, change: name})}) : name),
      make("td", {className: "number", textContent: number(count.clips)}),
      make("td", {className: "number", textContent: count.hours})));
    find("gate-said").replaceChildren(
      make("table", {}, make("thead", {}, make("tr", {}, ...["", "clips", "hours"].map((name) => make("th", {textContent: name})))),
        make("tbody", {}, ...rows)),
      make("p", {className: "said", textContent: "Nothing was put in force: write it into the recipe and run it."}));
  });
}
