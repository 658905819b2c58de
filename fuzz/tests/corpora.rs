//! Replays every file of every corpus, among them those of earlier findings.

use std::fs;
use std::path::Path;

#[test]
fn every_file_is_answered() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in sd_fuzz::TARGETS {
        let files = fs::read_dir(corpora.join(name)).expect("each target has a corpus");
        let mut count = 0;
        for file in files {
            target(&fs::read(file.expect("an entry").path()).expect("a file"));
            count += 1;
        }
        assert!(count > 0, "the corpus of {name} is empty");
    }
}
