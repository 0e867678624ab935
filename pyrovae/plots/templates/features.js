"use strict";
(() => {
  const list = document.getElementById("list");
  const form = document.getElementById("controls");
  const none = document.getElementById("none");
  const { sort, reverse, filter, query, found } = form.elements;
  const byName = new Intl.Collator("en", { numeric: true });
  const texts = (card, selector) => [...card.querySelectorAll(selector)].map((node) => node.textContent.toLowerCase());
  const latents = [...list.children].map((card) => ({
    card,
    number: card.dataset.number,
    name: card.dataset.name,
    density: Number(card.dataset.density),
    strength: Number(card.dataset.strength),
    state: card.dataset.state,
    labels: [...card.querySelectorAll("[data-label]")].map((node) => node.dataset.label.toLowerCase()),
    words: [card.dataset.name.toLowerCase(), ...texts(card, "th.column")],
  }));

  const orders = {
    density: (a, b) => b.density - a.density,
    strength: (a, b) => b.strength - a.strength,
    name: (a, b) => byName.compare(a.name, b.name),
  };
  const shows = {
    "": () => true,
    alive: (latent) => latent.state !== "dead",
    dead: (latent) => latent.state === "dead",
    dense: (latent) => latent.state === "dense",
  };

  function matches(latent, word) {
    if (word.startsWith("label:")) return latent.labels.includes(word.slice(6));
    if (/^#?\d+$/.test(word)) return latent.number === String(Number(word.replace("#", "")));
    return [...latent.words, ...latent.labels].some((text) => text.includes(word));
  }

  function order() {
    const sign = reverse.checked ? -1 : 1;
    const compare = orders[sort.value];
    latents.sort((a, b) => sign * (compare(a, b) || a.number - b.number));
    list.append(...latents.map((latent) => latent.card));
  }

  function choose() {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const latent of latents) {
      const chosen = shows[filter.value](latent) && words.every((word) => matches(latent, word));
      latent.card.hidden = !chosen;
      count += chosen;
    }
    found.value = `${count.toLocaleString("en")} of ${latents.length.toLocaleString("en")} latents`;
    none.hidden = count > 0;
  }

  function showAll() {
    filter.value = "";
    query.value = "";
    choose();
  }

  // A link to a latent that the filter hides shows it.
  function follow() {
    const card = /^#latent-\d+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
    if (!card) return;
    if (card.hidden) showAll();
    card.scrollIntoView({ block: "start" });
  }

  sort.addEventListener("change", order);
  reverse.addEventListener("change", order);
  filter.addEventListener("change", choose);
  query.addEventListener("input", choose);
  form.addEventListener("submit", (event) => event.preventDefault());
  none.querySelector("button").addEventListener("click", () => {
    showAll();
    query.focus();
  });
  window.addEventListener("hashchange", follow);
  form.hidden = false;
  order();
  choose();
  follow();
})();
