
// Reads the curves out where the pointer is. The page is whole without it.
(() => {
  const svg = document.querySelector("svg.memory");
  const numbers = (name) => (svg.dataset[name] || "").split(" ").filter(Boolean).map(Number);
  const [seconds, resident, allocated, device] = ["seconds", "resident", "allocated", "device"].map(numbers);
  if (!seconds.length) return;
  const [left, right, top, bottom, most] = ["left", "right", "top", "bottom", "most"].map((name) => Number(svg.dataset[name]));
  const chart = svg.parentElement;

  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  line.setAttribute("class", "crosshair");
  line.setAttribute("y1", top);
  line.setAttribute("y2", bottom);
  const readout = document.createElement("div");
  readout.className = "readout";
  line.style.display = readout.style.display = "none";
  svg.append(line);
  chart.append(readout);

  const bytes = (number) => {
    const units = ["bytes", "KB", "MB", "GB"];
    let unit = 0;
    while (unit < 3 && number >= 1024) { number /= 1024; unit += 1; }
    return unit ? number.toFixed(1) + units[unit] : number + " bytes";
  };
  const time = (number) => number < 1 ? Math.round(1000 * number) + " ms" : number.toFixed(2) + " s";

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    const at = (x - left) / (right - left) * most;
    const inside = x >= left && x <= right;
    line.style.display = readout.style.display = inside ? "" : "none";
    if (!inside) return;
    let [low, high] = [0, seconds.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (seconds[middle] <= at) low = middle; else high = middle - 1;
    }
    const rows = [time(at), "resident  " + bytes(resident[low])];
    if (allocated.some(Boolean)) rows.push("allocated  " + bytes(allocated[low]));
    if (device.some(Boolean)) rows.push("on the device  " + bytes(device[low]));
    readout.textContent = rows.join("\n");
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    const scale = box.width / svg.viewBox.baseVal.width;
    const beside = x * scale + 14 + readout.offsetWidth > right * scale ? -14 - readout.offsetWidth : 14;
    readout.style.transform = `translate(${x * scale + beside}px, ${(top + 8) * scale}px)`;
  });
  svg.addEventListener("pointerleave", () => { line.style.display = readout.style.display = "none"; });
})();
