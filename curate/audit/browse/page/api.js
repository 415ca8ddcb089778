// Asks the server. All addresses are relative: the token is the first part of the page's own.
export async function post(path, given = {}, signal) {
  const answer = await fetch(path, {method: "POST", body: JSON.stringify(given), signal});
  let said;
  try {
    said = await answer.json();
  } catch {
    throw new Error(`the server answered ${answer.status}`);
  }
  if (said.error) throw new Error(said.error);
  if (said.changed !== undefined) document.getElementById("changed").hidden = !said.changed;
  return said.answer;
}

export const ask = (question, given, signal) => post(`ask/${question}`, given, signal);

// Builds elements. Texts from the catalog become text nodes, never HTML.
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const find = (id) => document.getElementById(id);

export function options(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text]) => make("option", {value, textContent: text})));
  if (chosen !== undefined) select.value = chosen;
}

export function problem(error) {
  const line = find("problem");
  line.hidden = !error;
  line.textContent = error ? error.message : "";
}

// Runs something that may fail, and says so at the top of the page.
export async function telling(work) {
  try {
    problem(null);
    return await work();
  } catch (error) {
    if (error.name !== "AbortError") problem(error);
  }
}

export const number = (value) => value.toLocaleString("en-GB");

export function text(value) {
  if (value === null || value === undefined) return "NULL";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

export const fileName = (uri) => (uri ?? "").split("/").pop() || uri || "";

export const times = (clip) => clip.start_s === null ? "" : `${clip.start_s.toFixed(2)} to ${clip.end_s.toFixed(2)} s`;
