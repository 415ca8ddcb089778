// The SQL box, the schema beside it, and the rows of its answer.
import {ask, find, make, number, post, telling, text} from "./api.js";
import {choose, state} from "./app.js";

let runs = 0; // names a query, so that it can be stopped

export function startSql() {
  find("schema").replaceChildren(...Object.entries(state.schema.tables).map(([name, columns]) =>
    make("details", {open: name === "clips"}, make("summary", {textContent: name}),
      make("ul", {}, ...columns.map((each) => make("li", {},
        make("button", {type: "button", title: "put it into the query", onclick: () => insert(each.name)},
          each.name, make("span", {className: "pale", textContent: ` ${each.type}`}))))))));
  find("query").onsubmit = (event) => {
    event.preventDefault();
    run();
  };
  find("query-text").onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
  };
  find("query-stop").onclick = () => telling(() => post("stop", {number: name()}));
}

const name = () => `query ${runs} of ${page}`;
const page = crypto.getRandomValues(new Uint32Array(1))[0];

function insert(column) {
  const box = find("query-text");
  const plain = /^[a-z_][a-z0-9_]*$/.test(column) ? column : `"${column.replaceAll('"', '""')}"`;
  box.setRangeText(plain, box.selectionStart, box.selectionEnd, "end");
  box.focus();
}

async function run() {
  const mine = (runs += 1);
  const query = find("query-text").value;
  find("rows").replaceChildren();
  find("query-clips").hidden = true;
  find("query-stop").hidden = false;
  find("query-said").textContent = "…";
  const began = performance.now();
  let said = "";
  await telling(async () => {
    const found = await ask("rows", {text: query, number: name()});
    if (mine !== runs) return;
    const seconds = ((performance.now() - began) / 1000).toFixed(2);
    said = `${found.more ? "the first " : ""}${number(found.rows.length)} rows in ${seconds} s`;
    find("rows").replaceChildren(
      make("thead", {}, make("tr", {}, ...found.columns.map((each) => make("th", {textContent: each})))),
      make("tbody", {}, ...found.rows.map((row) => make("tr", {}, ...row.map((value) =>
        make("td", {className: typeof value === "number" ? "number" : "", textContent: text(value)}))))));
    find("query-clips").hidden = !found.clips;
    find("query-clips").onclick = () => choose({query});
  });
  if (mine !== runs) return;
  find("query-stop").hidden = true;
  find("query-said").textContent = said;
}
