//! The documents are true of the code: maps name every file, layers hold, tables are what the code prints.
//!
//! `MIRROR_BLESS=1 cargo test -p mirror --test docs` writes the printed parts anew; read the difference.

#[path = "docs/architecture.rs"]
mod architecture;
#[path = "docs/failures.rs"]
mod failures;
#[path = "docs/links.rs"]
mod links;
#[path = "docs/vault_format.rs"]
mod vault_format;

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The top of the repository.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between the markers of `section`.
fn section<'a>(text: &'a str, section: &str) -> &'a str {
    let (begin, end) = (format!("<!-- {section}: begin -->\n"), format!("<!-- {section}: end -->"));
    let (_, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("there is no section {section}"));
    rest.split_once(&end).unwrap_or_else(|| panic!("section {section} has no end")).0
}

/// Compares the section of a document with what the code says, or writes it.
fn hold(path: &str, name: &str, printed: &str) {
    // Tests run at once, and several print to one page.
    static PAGES: Mutex<()> = Mutex::new(());
    let _held = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let text = read(path);
    let written = section(&text, name);
    if written == printed {
        return;
    }
    assert!(env::var_os("MIRROR_BLESS").is_some(), "{path}, section {name}: set MIRROR_BLESS=1 to print it anew\n{printed}");
    let at = written.as_ptr() as usize - text.as_ptr() as usize;
    fs::write(top().join(path), [&text[..at], printed, &text[at + written.len()..]].concat()).unwrap();
}
