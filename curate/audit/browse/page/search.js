// Clips by words, by the embeddings of the catalog.
import {find, number, post, telling} from "./api.js";
import {choose, state} from "./app.js";

export function startSearch() {
  const {tables} = state.schema;
  const there = Object.entries(tables).some(([name, columns]) => columns.some((each) => each.name === `${name}_revision`)
    && columns.some((each) => ["embedding", `${name}_embedding`].includes(each.name)));
  for (const each of find("search").elements) each.disabled = !there;
  if (!there) find("search-said").textContent = "The catalog has no embeddings: run a recipe with the stage embed.";
  find("search").onsubmit = (event) => {
    event.preventDefault();
    telling(async () => {
      find("search-said").textContent = "Searching; the first time a model is loaded …";
      const found = await post("search", {text: find("words").value}).catch((error) => {
        find("search-said").textContent = "";
        throw error;
      });
      const rest = found.left_out ? ` Too long for the model; left out: ${found.left_out}` : "";
      find("search-said").textContent = `The ${number(found.clips.length)} nearest clips, best first.${rest}`;
      find("no-search").hidden = false;
      await choose({found: found.clips});
    });
  };
  find("no-search").onclick = () => {
    find("search-said").textContent = "";
    find("no-search").hidden = true;
    choose({found: null});
  };
}
