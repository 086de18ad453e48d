// Follows one server through all pictures. Without this script the page shows the same, unmarked.
"use strict";
{
  const list = document.getElementById("follow");
  const said = document.getElementById("followed");
  const KEY = "#server=";

  const follow = (name) => {
    for (const element of document.querySelectorAll("[data-server]")) {
      element.classList.toggle("followed", name !== "" && element.dataset.server === name);
    }
    document.body.classList.toggle("follows", name !== "");
    list.value = name;
    said.textContent = name === "" ? "" : describe(name);
    history.replaceState(null, "", name === "" ? "#" : KEY + encodeURIComponent(name));
  };

  // What the first map says of a server, in a line.
  const describe = (name) => {
    const map = document.querySelector("table.map");
    const row = map && [...map.tBodies[0].rows].find((row) => row.dataset.server === name);
    if (!row) return name;
    const letters = [...map.tHead.rows[0].cells].slice(1);
    const places = [...row.cells].slice(1);
    const each = places.map((place, n) => `${letters[n].textContent} ${place.textContent}`);
    return `${name}, times the best: ${each.join(", ")}`;
  };

  const step = (by) => {
    const count = list.options.length;
    follow(list.options[(list.selectedIndex + by + count) % count].value);
  };

  list.addEventListener("change", () => follow(list.value));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Escape") follow("");
    // In a list a letter looks for a name.
    if (event.target === list) return;
    if (event.key === "n") step(1);
    if (event.key === "p") step(-1);
    if (event.key === "s") {
      list.focus();
      event.preventDefault();
    }
  });
  document.addEventListener("click", (event) => {
    const named = event.target.closest("th[scope=row], .name, figcaption b");
    const own = named && named.closest("[data-server]");
    if (own) follow(own.classList.contains("followed") ? "" : own.dataset.server);
  });

  document.querySelector(".follow").hidden = false;
  if (location.hash.startsWith(KEY)) {
    const name = decodeURIComponent(location.hash.slice(KEY.length));
    if ([...list.options].some((option) => option.value === name)) follow(name);
  }
}
