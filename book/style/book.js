"use strict";
// What mdBook's pages lack for those who use a keyboard or a screen reader.

// What scrolls within itself can be reached with the keyboard.
for (const wide of document.querySelectorAll("pre > code, .table-wrapper")) wide.tabIndex = 0;

// A label that opens and closes something is a button, and may say whether it is open.
document.getElementById("mdbook-sidebar-toggle")?.setAttribute("role", "button");
