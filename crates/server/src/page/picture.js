// A place for one picture: drop it or choose it, see it, remove it. It is uploaded once, when a request first needs it.

import { byId, element } from "./elements.js";
import { postBytes } from "./requests.js";

const TYPES = ["image/png", "image/jpeg", "image/webp"];

export const isPicture = (file) => TYPES.includes(file?.type);
export const droppedFile = (event) => [...(event.dataTransfer?.files ?? [])].find(isPicture);
export const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

export class PictureInput {
  #url = null;
  #uploading = null;
  #file;
  #shown;
  #image;
  #size;
  #drop;

  /** Builds itself into `root`; `name` is what the picture is for, and `changed` is called with each new picture. */
  constructor(root, name, changed) {
    this.blob = null;
    this.changed = changed;
    this.#file = element("input", { type: "file", accept: TYPES.join(","), className: "hidden-text", "aria-label": `Choose: ${name}`, onchange: () => this.set(this.#file.files[0]) });
    this.#drop = element("label", { className: "picture-drop" }, element("span", {}, element("strong", { textContent: "Choose a picture" }), " or drop it here"), element("span", { textContent: name }), this.#file);
    this.#image = element("img", { alt: name });
    this.frame = element("div", { className: "picture-frame" }, this.#image);
    this.#size = element("span", { className: "note" });
    this.#shown = element("div", { className: "picture-shown", hidden: true }, this.frame,
      element("div", { className: "picture-line" }, this.#size, element("button", { type: "button", className: "quiet", textContent: "Remove", "aria-label": `Remove: ${name}`, onclick: () => this.#removed() })));
    this.name = name;
    root.classList.add("picture");
    root.append(this.#drop, this.#shown);
    root.addEventListener("dragover", (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      event.stopPropagation();
      byId("drop-hint").hidden = true; // which is for the rest of the page
      root.classList.add("over");
    });
    root.addEventListener("dragleave", () => root.classList.remove("over"));
    root.addEventListener("drop", (event) => {
      root.classList.remove("over");
      event.preventDefault();
      event.stopPropagation();
      byId("drop-hint").hidden = true;
      this.set(droppedFile(event));
    });
  }

  get image() {
    return this.#image;
  }

  /** Takes a blob, or nothing for `null`. Resolves once the picture is shown. */
  async set(blob) {
    if (blob === undefined) return;
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.blob = blob;
    this.#uploading = null;
    this.#file.value = "";
    this.#url = blob ? URL.createObjectURL(blob) : null;
    this.#drop.hidden = blob !== null;
    this.#shown.hidden = blob === null;
    if (blob) {
      this.#image.src = this.#url;
      await this.#image.decode().catch(() => {}); // the server says what is wrong with it
      this.#size.textContent = `${this.#image.naturalWidth} × ${this.#image.naturalHeight}`;
    } else this.#image.removeAttribute("src");
    this.changed();
  }

  #removed() {
    this.set(null);
    this.#file.focus();
  }

  /** What a request says for this picture. */
  async reference() {
    this.#uploading ??= postBytes("/api/uploads", this.blob).catch((error) => {
      this.#uploading = null;
      throw error;
    });
    return `upload:${(await this.#uploading).upload}`;
  }

  /** The server has dropped the upload: the next request brings it again. */
  forgetUpload() {
    this.#uploading = null;
  }
}
