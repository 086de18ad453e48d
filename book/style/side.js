"use strict";
// Shows two servers side by side. What is equal was found when the page was built: `data.pairs`.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const chosen = { left: "epoll-level", right: "epoll-edge", form: "bare", moment: "" };
let differences = [];
let at = -1;

function main() {
  fromAddress();
  for (const id of ["left", "right", "form"]) {
    byId(id).addEventListener("change", () => choose({ [id]: byId(id).value, moment: chosen.moment }));
  }
  byId("swap").addEventListener("click", swap);
  byId("next").addEventListener("click", () => step(1));
  byId("previous").addEventListener("click", () => step(-1));
  for (const button of byId("moments").querySelectorAll("button")) {
    button.addEventListener("click", () => choose({ moment: button.dataset.moment }));
  }
  window.addEventListener("hashchange", () => { if (fromAddress()) show(); });
  document.addEventListener("keydown", key);
  show();
}

function key(event) {
  const own = ["SELECT", "INPUT", "TEXTAREA"].includes(event.target.tagName);
  if (own || event.ctrlKey || event.altKey || event.metaKey) return;
  const moment = data.moments[Number(event.key) - 1];
  if (event.key === "n") step(1);
  else if (event.key === "p") step(-1);
  else if (event.key === "s") swap();
  else if (event.key === "f") choose({ form: chosen.form === "bare" ? "complete" : "bare" });
  else if (moment) choose({ moment: moment.name });
  else return;
  event.preventDefault();
}

function swap() {
  choose({ left: chosen.right, right: chosen.left });
}

function choose(change) {
  Object.assign(chosen, change);
  toAddress();
  show();
}

// The address says what is shown, so that a place can be linked to. True if it says something new.
function fromAddress() {
  const before = JSON.stringify(chosen);
  const address = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(chosen)) {
    const value = address.get(name);
    const known = name === "form" ? ["bare", "complete", "both"]
      : name === "moment" ? data.moments.map((moment) => moment.name) : data.models;
    if (known.includes(value)) chosen[name] = value;
  }
  return JSON.stringify(chosen) !== before;
}

function toAddress() {
  history.replaceState(null, "", "#" + new URLSearchParams(chosen));
}

// The two programs. Two of one server are its two forms: the model bare, and the complete one.
function names() {
  if (chosen.form === "both" || chosen.left === chosen.right) {
    return ["bare/" + chosen.left, "complete/" + chosen.left];
  }
  return [chosen.form + "/" + chosen.left, chosen.form + "/" + chosen.right];
}

// What was found for two programs, with the sides as they are shown.
function pair(left, right) {
  const found = data.pairs[left + " " + right];
  if (found) return found;
  return data.pairs[right + " " + left].map((part) => ({
    sections: [part.sections[1], part.sections[0]],
    runs: part.runs.map((run) => {
      if (Array.isArray(run)) return [run[1], run[0], run[2]];
      if (run.lines) return { lines: [run.lines[1], run.lines[0]], words: [run.words[1], run.words[0]] };
      return { ...run, side: 1 - run.side };
    }),
  }));
}

function show() {
  const [left, right] = names();
  const programs = [data.programs[left], data.programs[right]];
  byId("left").value = chosen.left;
  byId("right").value = chosen.right;
  byId("form").value = chosen.form;
  for (const button of byId("moments").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.moment === chosen.moment));
  }
  byId("pair").textContent = left + " and " + right;
  const code = byId("code");
  const titles = element("p", "names titles");
  titles.append(element("strong", "", left), element("strong", "", right));
  code.replaceChildren(titles);
  for (const part of pair(left, right)) code.append(section(part, programs));
  differences = [...code.querySelectorAll(".row.differs")]
    .filter((row) => !row.previousElementSibling?.classList.contains("differs"));
  at = -1;
  byId("count").textContent = differences.length + " differences";
  notes([left, right], programs);
  if (chosen.moment) go(programs);
}

function section(part, programs) {
  const title = part.sections.map((section, side) =>
    section === null ? "" : programs[side].sections[section].key);
  const whole = element("section", "part");
  const names = element("div", "names");
  title.forEach((name, side) => {
    if (!name) return names.append(element("span", ""));
    const again = side === 1 && name === title[0] ? " again" : "";
    names.append(element("h3", (side === 0 ? "left" : "right") + again, name));
  });
  whole.append(names);
  for (const run of part.runs) rows(run, programs, whole);
  return whole;
}

function rows(run, programs, into) {
  if (Array.isArray(run)) {
    for (let i = 0; i < run[2]; i++) into.append(row(programs, [run[0] + i, run[1] + i], "equal"));
  } else if (run.lines) {
    into.append(row(programs, run.lines, "differs", run.words));
  } else {
    for (let i = 0; i < run.len; i++) {
      const lines = [null, null];
      lines[run.side] = run.first + i;
      into.append(row(programs, lines, "differs"));
    }
  }
}

function row(programs, lines, kind, words) {
  const whole = element("div", "row " + kind);
  const alone = lines.includes(null);
  lines.forEach((line, side) => {
    const cell = element("div", "cell " + (side === 0 ? "left" : "right"));
    if (line !== null) {
      cell.classList.add("filled");
      if (alone) cell.classList.add("only");
      const [number, file] = place(programs[side], line);
      const shown = element("span", "number", String(number));
      shown.title = file;
      cell.append(shown, source(programs[side].lines[line], words ? words[side] : []));
      cell.dataset.line = line;
    }
    whole.append(cell);
  });
  return whole;
}

// The number of a line in its own file, and that file.
function place(program, line) {
  const [start, file] = program.files.findLast(([start]) => start <= line);
  return [line - start + 1, file];
}

function source(text, words) {
  const code = element("code", text.trimStart().startsWith("//") ? "comment" : "");
  const letters = [...text];
  let from = 0;
  for (const [start, end] of words) {
    code.append(letters.slice(from, start).join(""), element("mark", "", letters.slice(start, end).join("")));
    from = end;
  }
  code.append(letters.slice(from).join("") || (from ? "" : " "));
  return code;
}

function notes(names, programs) {
  const into = byId("notes");
  into.replaceChildren();
  const index = data.moments.findIndex((moment) => moment.name === chosen.moment);
  if (index >= 0) {
    into.append(element("h3", "", "The moment: " + chosen.moment));
    into.append(element("p", "", data.moments[index].note));
  }
  programs.forEach((program, side) => {
    into.append(element("h3", "", names[side]));
    const where = index < 0 ? null : program.moments[index];
    if (typeof where === "string") into.append(element("p", "", chosen.moment + ": " + where));
    else if (where !== null) {
      const [number, file] = place(program, where);
      const button = element("button", "", chosen.moment + ": line " + number);
      button.type = "button";
      button.title = file;
      button.addEventListener("click", () => reach(cellOf(side, where).parentElement));
      into.append(button);
    }
    for (const note of program.notes) into.append(element("p", "", note.replaceAll("**", "").replaceAll("`", "")));
  });
}

// Goes to the moment that was chosen. Each side may have its own row.
function go(programs) {
  const index = data.moments.findIndex((moment) => moment.name === chosen.moment);
  let first = null;
  programs.forEach((program, side) => {
    const line = program.moments[index];
    if (typeof line === "string") return;
    const cell = cellOf(side, line);
    cell.classList.add("moment");
    const row = cell.parentElement;
    row.classList.add("here");
    first ??= row;
  });
  if (first) reach(first);
}

function cellOf(side, line) {
  return document.querySelector(`.cell.${side === 0 ? "left" : "right"}[data-line="${line}"]`);
}

function step(by) {
  if (!differences.length) return;
  at = at < 0 && by < 0 ? differences.length - 1 : (at + by + differences.length) % differences.length;
  document.querySelectorAll(".row.here").forEach((row) => row.classList.remove("here"));
  differences[at].classList.add("here");
  byId("count").textContent = "difference " + (at + 1) + " of " + differences.length;
  reach(differences[at]);
}

function reach(row) {
  row.tabIndex = -1;
  row.focus({ preventScroll: true });
  row.scrollIntoView({ block: "center" });
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

main();
