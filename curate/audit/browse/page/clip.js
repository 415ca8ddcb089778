// Everything about one clip: it plays, why it was kept or dropped, its captions, its duplicates, all its columns.
import {make, number, text} from "./api.js";
import {card, showClip} from "./gallery.js";

export function details(found) {
  const {clip, source, gates, captions, duplicates, place} = found;
  const parts = [player(clip, place), judged(clip, gates)];
  if (captions.length) parts.push(make("h3", {textContent: "Captions"}), make("div", {className: "side-by-side"},
    ...captions.map((each) => make("blockquote", {}, make("cite", {textContent: each.name}), text(each.text)))));
  for (const group of duplicates) {
    const kind = Object.entries(group).find(([name, value]) => name.endsWith("duplicate_kind") && value);
    parts.push(make("h3", {textContent: `${number(group.count)} duplicates${kind ? `, ${kind[1]}` : ""} (${group.column})`}),
      make("ol", {className: "cards"}, ...group.clips.map((each) => card(each, () => showClip(each.clip_id)))));
  }
  parts.push(make("h3", {textContent: "Columns of the clip"}), table(clip));
  parts.push(make("details", {}, make("summary", {textContent: "Columns of its source"}), table(source)));
  return parts;
}

function player(clip, place) {
  const poster = place === null ? "" : `thumbnail/${place}`;
  if (clip.media === "image") return make("img", {className: "still", src: poster, alt: "the picture"});
  const said = make("p", {className: "said", role: "status", textContent: "Cutting the clip out of its source …"});
  const video = make("video", {controls: true, loop: true, muted: true, autoplay: true, playsInline: true,
    ariaLabel: "the clip", poster, src: `span/${encodeURIComponent(clip.clip_id)}.mp4`});
  video.onloadeddata = () => (said.textContent = "Exactly the clip's span of its source.");
  video.onerror = async () => {
    if (!video.getAttribute("src")) return;
    said.textContent = "It can't be played here.";
    const answer = await fetch(video.src);
    if (!answer.ok) said.textContent = (await answer.json()).error;
  };
  return make("div", {}, video, said);
}

function judged(clip, gates) {
  const rows = gates.map((gate) => make("tr", {},
    make("td", {textContent: gate.name}),
    make("td", {className: gate.drops ? "dropped" : "kept", textContent: gate.says}),
    make("td", {textContent: gate.where}),
    make("td", {textContent: Object.entries(gate.values).map(([name, value]) => `${name} ${text(value)}`).join(", ")})));
  const why = clip.verdict === "kept" ? "Kept" : `Dropped by ${clip.dropped_by}`;
  return make("div", {}, make("h3", {}, make("span", {className: clip.verdict, textContent: why})),
    gates.length ? make("div", {className: "scrolled"}, make("table", {},
      make("thead", {}, make("tr", {}, ...["gate", "says", "condition", "values"].map((name) => make("th", {textContent: name})))),
      make("tbody", {}, ...rows))) : make("p", {className: "said", textContent: "No gate is in force."}));
}

function table(values) {
  return make("div", {className: "scrolled"}, make("table", {}, make("tbody", {},
    ...Object.entries(values).map(([name, value]) => make("tr", {},
      make("th", {scope: "row", textContent: name}), make("td", {textContent: text(value)}))))));
}
