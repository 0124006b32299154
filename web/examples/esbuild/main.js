import { Recommender } from "tigret/inline";

const recommender = await Recommender.load("./model.safetensors");
const { ids } = await recommender.catalogue();
const picks = await recommender.recommend({ history: ids.slice(0, 3), exclude: "history" });

const list = document.querySelector("#picks");
for (const { id } of picks) {
  list.append(Object.assign(document.createElement("li"), { textContent: id }));
}
document.title = `${picks.length} for you`;
