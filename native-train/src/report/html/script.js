"use strict";
// Says below the tree what the arc under the pointer is, also where no tooltips are shown.
const tree = document.querySelector(".tree svg");
const said = document.querySelector(".tree output");
if (tree && said) {
  said.textContent = "Point at an arc, or tap it.";
  const say = (event) => {
    const title = event.target.querySelector("title");
    if (title) said.textContent = title.textContent;
  };
  tree.addEventListener("pointerover", say);
  tree.addEventListener("click", say);
}
