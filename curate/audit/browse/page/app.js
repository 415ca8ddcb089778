// The page: what is chosen, and the parts that change it.
import {ask, find, number, post, telling} from "./api.js";
import {showFilters, startFilters} from "./filters.js";
import {startGate} from "./gate.js";
import {reloadClips, startGallery} from "./gallery.js";
import {startExport} from "./export.js";
import {startSearch} from "./search.js";
import {startSql} from "./sql.js";

// As the server takes it (curate/audit/browse/clip_choice.py); `schema` is the answer to the first question.
export const state = {
  selection: {filters: [], query: null, found: null, gate: null, change: null, order: null, descending: false},
  schema: null,
};

export function choose(changes) {
  Object.assign(state.selection, changes);
  showFilters();
  view("clips");
  return reloadClips();
}

export function view(name) {
  for (const each of ["clips", "sql"]) {
    find(each).hidden = each !== name;
    find(`show-${each}`).setAttribute("aria-pressed", each === name);
  }
}

async function start() {
  if (matchMedia("(max-width: 48rem)").matches) {
    for (const part of document.querySelectorAll("aside details")) part.open = false;
  }
  state.schema = await ask("schema");
  const {clips, kept, hours} = state.schema;
  find("totals").textContent = `${number(clips)} clips, ${number(kept)} of them kept, ${hours} hours`;
  startFilters();
  startGate();
  startSearch();
  startSql();
  startExport();
  startGallery();
  await reloadClips();
}

find("show-clips").onclick = () => view("clips");
find("show-sql").onclick = () => {
  view("sql");
  find("query-text").focus();
};
find("reload").onclick = () => telling(async () => {
  find("reload").disabled = true;
  await post("reload").finally(() => (find("reload").disabled = false));
  location.reload();
});
addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, textarea, select");
  if (event.key === "/" && !typing && !document.querySelector("dialog[open]")) {
    event.preventDefault();
    find("words").focus();
  }
});
telling(start);
