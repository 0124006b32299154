"use client";

import { useEffect, useState } from "react";
import { Recommender } from "tigret";

export default function Page() {
  const [picks, setPicks] = useState([]);
  useEffect(() => {
    const leaving = new AbortController();
    const { signal } = leaving;
    const recommend = async () => {
      const recommender = await Recommender.load("/model.safetensors", { signal });
      signal.addEventListener("abort", () => recommender.dispose());
      const { ids } = await recommender.catalogue();
      const found = await recommender.recommend({ history: ids.slice(0, 3), exclude: "history" });
      setPicks(found);
      document.title = `${found.length} for you`;
    };
    recommend().catch((error) => {
      if (!signal.aborted) throw error;
    });
    return () => leaving.abort();
  }, []);
  return (
    <>
      <h1>For you</h1>
      <ol id="picks">
        {picks.map(({ id }) => (
          <li key={id}>{id}</li>
        ))}
      </ol>
    </>
  );
}
