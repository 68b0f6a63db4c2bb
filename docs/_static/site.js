// What the theme's pages lack for readers without a mouse or a screen.
document.addEventListener("DOMContentLoaded", () => {
  for (const caption of document.querySelectorAll(".caption[role=heading]")) caption.setAttribute("aria-level", "2");
  // A signature on several lines is a list without terms.
  for (const part of document.querySelectorAll("dt > dl, dt > dl > dd")) part.setAttribute("role", "none");
  // What scrolls can be reached by keyboard.
  for (const part of document.querySelectorAll(".highlight pre, .table-wrapper")) part.tabIndex = 0;
});
