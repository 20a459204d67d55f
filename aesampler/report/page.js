"use strict";
// Filters, clips and keys of a report; without it the page still shows every figure and sample.
(() => {
  const STEP = 12;      // cards that one press of "show more" adds
  const PACE = 160;     // milliseconds a frame of a playing clip
  const one = (id) => document.getElementById(id);
  const form = one("filters");
  const fields = form.elements;
  const list = one("cards");
  const cards = [...list.children].map((card) => ({
    card,
    source: card.dataset.source,
    label: card.dataset.label,
    names: [...card.querySelectorAll(".chip")].map((chip) => ({
      name: chip.dataset.name.toLowerCase(),
      exposed: chip.classList.contains("exposed"),
    })),
    stop: () => {},
  }));
  let room = STEP;

  const show = () => {
    const wanted = fields.category.value.trim().toLowerCase();
    const known = cards.some(({ names }) => names.some(({ name }) => name === wanted));
    const fits = ({ name, exposed }) =>
      (known ? name === wanted : name.includes(wanted)) && (exposed || !fields.exposed.checked);
    let found = 0;
    for (const entry of cards) {
      const fit =
        (!fields.source.value || entry.source === fields.source.value) &&
        (!fields.label.value || entry.label === fields.label.value) &&
        ((!wanted && !fields.exposed.checked) || entry.names.some(fits));
      found += fit;
      entry.card.hidden = !fit || found > room;
      if (entry.card.hidden) entry.stop();
    }
    list.classList.toggle("bare", !fields.masks.checked);
    one("found").value = `${Math.min(found, room)} of ${found} shown` + (found < cards.length ? `, ${cards.length} in all` : "");
    one("none").hidden = found > 0;
    one("more").hidden = found <= room;
    one("more").textContent = `Show ${Math.min(STEP, found - room)} more`;
  };

  const clip = (entry) => {
    const { card } = entry;
    const player = card.querySelector(".player");
    if (!player) return;
    const shots = [...card.querySelectorAll(".shot")];
    const [play, slider, told] = [player.querySelector("button"), player.querySelector("input"), player.querySelector("output")];
    let clock = 0;
    const go = (place) => {
      shots.forEach((shot, at) => shot.classList.toggle("on", at === place));
      slider.value = place;
      const text = `${shots[place].dataset.place} \u00b7 ${shots[place].dataset.label}`;
      told.value = text;
      slider.setAttribute("aria-valuetext", `frame ${text}`);
    };
    entry.stop = () => {
      clearInterval(clock);
      clock = 0;
      play.setAttribute("aria-pressed", "false");
    };
    const toggle = () => {
      if (clock) return entry.stop();
      clock = setInterval(() => go((Number(slider.value) + 1) % shots.length), PACE);
      play.setAttribute("aria-pressed", "true");
    };
    play.addEventListener("click", toggle);
    card.querySelector(".stage").addEventListener("click", toggle);
    slider.addEventListener("input", () => {
      entry.stop();
      go(Number(slider.value));
    });
    player.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === " " && event.target === slider) toggle();
      else if (step && event.target === play) {
        entry.stop();
        go((Number(slider.value) + step + shots.length) % shots.length);
      } else return;
      event.preventDefault();
    });
    player.hidden = false;
    go(Number(slider.getAttribute("value")));
  };

  cards.forEach(clip);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    room = STEP;
    show();
  });
  form.addEventListener("reset", () => {
    room = STEP;
    setTimeout(show);
  });
  one("more").addEventListener("click", () => {
    const next = cards.filter(({ card }) => !card.hidden).length;
    room += STEP;
    show();
    cards.filter(({ card }) => !card.hidden)[next]?.card.querySelector("button, input")?.focus();
  });
  list.addEventListener("click", (event) => {
    const chip = event.target.closest(".chip");
    if (!chip) return;
    fields.category.value = chip.dataset.name;
    room = STEP;
    show();
    form.scrollIntoView({ block: "nearest" });
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=range], [type=radio], [type=checkbox]), select");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      fields.category.focus();
      event.preventDefault();
    } else if (event.key === "m") {
      fields.masks.checked = !fields.masks.checked;
      show();
    }
  });

  const links = [...document.querySelectorAll("nav a")];
  const seen = new IntersectionObserver(
    (entries) =>
      entries.filter((entry) => entry.isIntersecting).forEach((entry) =>
        links.forEach((link) => link.classList.toggle("here", link.hash === `#${entry.target.id}`))),
    { rootMargin: "-20% 0px -70% 0px" },
  );
  document.querySelectorAll("main > section").forEach((section) => seen.observe(section));
  form.hidden = one("hint").hidden = false;
  show();
})();
