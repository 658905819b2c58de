//! Lists the files of the built-in model, so that they become part of the binary.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use sha2::{Digest, Sha256};

/// Beside the model lie its card and the prompts that it is tested with, which are not part of it.
const NOT_OF_THE_MODEL: [&str; 2] = ["README.md", "held_out.json"];

fn main() -> io::Result<()> {
    // Read while it runs: a script that was compiled for another checkout would list that one's files.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?;
    let root = Path::new(&manifest).join("../../models/demo");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();

    let mut list = String::from("&[\n");
    for file in files {
        let inside = file.strip_prefix(&root).map_err(io::Error::other)?;
        let inside = inside.to_string_lossy().replace('\\', "/");
        if !NOT_OF_THE_MODEL.contains(&inside.as_str()) {
            let path = fs::canonicalize(&file)?;
            // So that no run has to read the file whole to recognise it.
            let digest = Sha256::digest(fs::read(&file)?);
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(
                list,
                "    EmbeddedFile {{ path: {inside:?}, bytes: include_bytes!({path:?}), digest: {digest:?} }},"
            )
            .map_err(io::Error::other)?;
        }
    }
    list.push_str("]\n");
    let target = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    fs::write(target.join("demo_files.rs"), list)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?
        } else {
            files.push(path)
        }
    }
    Ok(())
}
