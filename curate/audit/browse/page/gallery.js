// The clips that are chosen, a page at a time, and the dialog of one of them.
import {ask, fileName, find, make, number, telling, text, times} from "./api.js";
import {state} from "./app.js";
import {details} from "./clip.js";

let shown = []; // cards, in order
let next = null; // where the page behind them begins
let asked = null; // ends the questions of an earlier choice
let open = -1; // of `shown`, in the dialog

export function card(clip, onclick) {
  const picture = make("span", {className: "picture"});
  if (clip.place !== null) picture.append(make("img", {src: `thumbnail/${clip.place}`, alt: "", loading: "lazy"}));
  const why = clip.verdict === "kept" ? "kept" : `dropped by ${(clip.failed_gates ?? []).join(", ")}`;
  const words = make("span", {className: "words"},
    make("span", {className: clip.verdict, textContent: why}),
    make("span", {textContent: fileName(clip.uri)}),
    make("span", {className: "pale", textContent: times(clip)}));
  const by = state.selection.order;
  if (by) words.append(make("span", {className: "pale", textContent: `${by} ${text(clip.by)}`}));
  return make("li", {}, make("button", {type: "button", className: "card", onclick}, picture, words));
}

export async function reloadClips() {
  asked?.abort();
  const mine = (asked = new AbortController());
  find("cards").replaceChildren();
  [shown, next] = [[], null];
  find("more").hidden = true;
  find("chosen").textContent = "…";
  await telling(async () => {
    await Promise.all([page(mine), total(mine)]);
  });
  if (mine === asked && find("chosen").textContent === "…") find("chosen").textContent = "";
}

async function total(mine) {
  const found = await ask("count", {selection: state.selection}, mine.signal);
  find("chosen").textContent = found.clips
    ? `${number(found.clips)} clips, ${number(found.kept)} of them kept, ${found.hours} hours`
    : "No clip is like that.";
}

async function page(mine) {
  const given = {selection: state.selection};
  if (next !== null) given.after = next;
  const found = await ask("page", given, mine.signal);
  if (mine !== asked) return;
  const begin = shown.length;
  shown = shown.concat(found.clips);
  next = found.next;
  find("cards").append(...found.clips.map((clip, at) => card(clip, () => show(begin + at))));
  find("more").hidden = next === null;
}

async function more() {
  find("more").hidden = true;
  await telling(() => page(asked));
}

async function show(at) {
  if (at < 0 || at >= shown.length) return;
  open = at;
  await showClip(shown[at].clip_id);
  if (at > shown.length - 4 && next !== null && !find("more").hidden) more();
}

export async function showClip(id) {
  const dialog = find("clip");
  await telling(async () => {
    const clip = await ask("clip", {clip_id: id});
    find("clip-title").textContent = `${fileName(clip.clip.uri)}  ${times(clip.clip)}`;
    stop();
    find("clip-body").replaceChildren(...details(clip));
    find("clip-before").disabled = open <= 0;
    find("clip-after").disabled = open < 0 || open >= shown.length - 1;
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  });
}

function stop() {
  for (const video of find("clip-body").querySelectorAll("video")) {
    video.pause();
    video.removeAttribute("src");
    video.load();
  }
}

export function startGallery() {
  find("more").onclick = more;
  new IntersectionObserver((seen) => seen.some((each) => each.isIntersecting) && !find("more").hidden && more(),
    {rootMargin: "400px"}).observe(find("more"));
  const dialog = find("clip");
  find("clip-close").onclick = () => dialog.close();
  find("clip-before").onclick = () => show(open - 1);
  find("clip-after").onclick = () => show(open + 1);
  dialog.onclose = () => {
    stop();
    find("cards").children[open]?.querySelector("button").focus();
  };
  dialog.onkeydown = (event) => {
    if (event.target.matches("video")) return;
    if (event.key === "ArrowLeft") show(open - 1);
    if (event.key === "ArrowRight") show(open + 1);
  };
}
