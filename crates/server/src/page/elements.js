// Makes elements of the page, and writes quantities as people read them. Text from outside only ever becomes text nodes.

export const byId = (id) => document.getElementById(id);

/** A new element with properties (`class`, `dataset`, listeners as `onclick`, attributes) and children. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "dataset") Object.assign(made.dataset, value);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Puts `nodes` into `parent` in this order and moves only what is elsewhere, so that the focus stays where it is. */
export function arrange(parent, nodes) {
  for (const child of [...parent.children]) if (!nodes.includes(child)) child.remove();
  nodes.forEach((node, index) => {
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
}

/** Says `text` to screen readers. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** 1024 bytes are a kilobyte, as in the program's own tables. */
export function bytes(count) {
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1023.95 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${Math.round(count)} bytes` : `${count.toFixed(1)} ${units[unit]}`;
}

export const sizeText = (size) => size.replace(/^(\d+)x(\d+)$/, "$1 × $2");

export function duration(seconds) {
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export const several = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** Runs `action` once calls have stopped for `milliseconds`. */
export function afterPause(milliseconds, action) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), milliseconds);
  };
}

/** Values that the browser keeps between visits. A browser that forbids it only forgets them. */
export const kept = {
  get(key) {
    try {
      return JSON.parse(localStorage.getItem(`sd-generate.${key}`));
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(`sd-generate.${key}`, JSON.stringify(value));
    } catch {
      // Nothing is lost but the memory of it.
    }
  },
};

/** Shows a message above the results until it is closed; what worked goes by itself. */
export function notify(text, failed = false) {
  const notice = element("div", { className: failed ? "notice failed" : "notice" }, element("p", { textContent: text }));
  notice.append(element("button", { type: "button", className: "quiet", textContent: "✕", "aria-label": "Close this message", onclick: () => notice.remove() }));
  const notices = byId("notices");
  notices.prepend(notice);
  while (notices.children.length > 4) notices.lastChild.remove();
  if (!failed) setTimeout(() => notice.matches(":hover, :focus-within") || notice.remove(), 12000);
}
