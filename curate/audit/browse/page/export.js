// What is shown, as SQL and as the command that makes a dataset of it; nothing is written from here.
import {ask, find, make, telling} from "./api.js";
import {state} from "./app.js";

export function startExport() {
  find("show-export").onclick = () => telling(async () => {
    const found = await ask("export", {selection: state.selection});
    find("export-body").replaceChildren(
      ...part("SQL, for clipmill sql and for --select", found.sql),
      ...part("a dataset of its encoded clips (put a name for NAME)", found.dataset),
      make("p", {className: "said", textContent: "This page only reads: the command is yours to run."}));
    find("export").showModal();
  });
  find("export-close").onclick = () => find("export").close();
}

function part(title, content) {
  const copy = make("button", {type: "button", textContent: "Copy"});
  copy.onclick = async () => {
    await navigator.clipboard.writeText(content);
    copy.textContent = "Copied";
  };
  return [make("h3", {textContent: title}), make("pre", {tabIndex: 0, textContent: content}), copy];
}
