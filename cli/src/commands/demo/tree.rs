//! A tree to show with: everything that a file system can hold and that copying tools get wrong, and enough bytes to measure.
//!
//! The same size gives the same tree on every machine: contents come from a fixed seed, file times are fixed.

use crate::{failure::Failure, interrupt::Interrupt};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const SEED: u64 = 0x6d69_7272_6f72;
/// One small file for so many bytes of the whole.
const BYTES_PER_SMALL_FILE: u64 = 160 << 10;
const SMALL_FILE_BYTES_MAX: u64 = 16 << 10;
const FILES_PER_DIRECTORY: u64 = 100;
/// Around the sizes at which a value changes its form: empty, one chunk, several.
const ODD_SIZES: [u64; 11] =
    [0, 1, 2, 4_095, 4_096, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, (256 << 10) - 1, (1 << 20) + 1, (4 << 20) + 1];
/// Space, quotes, a leading dash, line break, combining marks, right-to-left, and bytes that are not UTF-8.
const ODD_NAMES: [&[u8]; 9] = [
    b" ",
    b"-rf",
    b"it's \"quoted\"",
    b"line\nbreak",
    b"back\\slash",
    "e\u{301}te\u{301}".as_bytes(),
    "שלום".as_bytes(),
    b".hidden",
    b"caf\xe9",
];

/// What was made.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Made {
    /// Regular files.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// Makes a tree of about `bytes` in `dir`, which is not there yet.
///
/// # Errors
/// The file system's, or [`Failure::interrupted`].
pub(super) fn generate(dir: &Path, bytes: u64, interrupt: &Interrupt) -> Result<Made, Failure> {
    let mut tree = Tree { dir: dir.to_owned(), noise: Noise(SEED), made: Made::default(), interrupt };
    match tree.grow(bytes) {
        Err(_) if interrupt.is_set() => Err(Failure::interrupted()),
        Err(error) => Err(Failure::writing(dir, &error)),
        Ok(()) => Ok(tree.made),
    }
}

/// What a file is filled with.
#[derive(Clone, Copy)]
enum Content {
    /// What cannot be compressed.
    Noise,
    /// What can.
    Text,
}

struct Tree<'a> {
    dir: PathBuf,
    noise: Noise,
    made: Made,
    interrupt: &'a Interrupt,
}

impl Tree<'_> {
    fn grow(&mut self, bytes: u64) -> io::Result<()> {
        fs::create_dir(&self.dir)?;
        self.odd()?;
        self.small(bytes / BYTES_PER_SMALL_FILE)?;
        self.large(bytes.saturating_sub(self.made.bytes))?;
        self.links()
    }

    fn odd(&mut self) -> io::Result<()> {
        for size in ODD_SIZES {
            self.file(format!("sizes/{size}"), size, Content::Noise, 0o644)?;
        }
        for name in ODD_NAMES {
            match self.file(Path::new("names").join(OsStr::from_bytes(name)), 100, Content::Text, 0o644) {
                // File systems that want UTF-8 refuse what is not.
                Err(_) if std::str::from_utf8(name).is_err() => {}
                made => made?,
            }
        }
        self.file("names/".to_owned() + &"n".repeat(255), 100, Content::Text, 0o644)?;
        self.file("d/e/e/p/".repeat(10) + "file", 100, Content::Text, 0o644)?;
        for mode in [0o400, 0o600, 0o640, 0o755, 0o777] {
            self.file(format!("modes/{mode:o}"), 100, Content::Text, mode)?;
        }
        fs::create_dir_all(self.dir.join("empty/directory"))?;
        fs::set_permissions(self.dir.join("empty"), fs::Permissions::from_mode(0o700))
    }

    fn small(&mut self, count: u64) -> io::Result<()> {
        for number in 0..count {
            let size = self.noise.next() % SMALL_FILE_BYTES_MAX;
            let content = if number % 2 == 0 { Content::Text } else { Content::Noise };
            self.file(format!("small/{}/{number}", number / FILES_PER_DIRECTORY), size, content, 0o644)?;
        }
        Ok(())
    }

    /// Half of it in one file, then ever smaller ones; a tenth of them is text.
    fn large(&mut self, bytes: u64) -> io::Result<()> {
        self.file("large/text", bytes / 10, Content::Text, 0o644)?;
        let mut left = bytes - bytes / 10;
        for number in 0..4 {
            let size = if number == 3 { left } else { left / 2 };
            self.file(format!("large/{number}"), size, Content::Noise, 0o644)?;
            left -= size;
        }
        // A second copy costs nothing: equal chunks are stored once. A hole costs one chunk of zeros.
        fs::copy(self.dir.join("large/3"), self.dir.join("large/copy"))?;
        let sparse = File::create(self.dir.join("large/sparse"))?;
        sparse.set_len(bytes / 10)?;
        self.made.files += 2;
        self.made.bytes += left + bytes / 10;
        Ok(())
    }

    fn links(&mut self) -> io::Result<()> {
        fs::create_dir(self.dir.join("links"))?;
        let links: [(&[u8], &str); 4] =
            [(b"../sizes/1", "relative"), (b"/nowhere/at/all", "dangling"), (b"../small", "directory"), (b"caf\xe9", "not-utf8")];
        links.iter().try_for_each(|(target, name)| symlink(OsStr::from_bytes(target), self.dir.join("links").join(name)))
    }

    fn file(&mut self, name: impl AsRef<Path>, size: u64, content: Content, mode: u32) -> io::Result<()> {
        if self.interrupt.is_set() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let path = self.dir.join(name);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut file = BufWriter::with_capacity(64 << 10, File::create(&path)?);
        let mut left = size;
        while left > 0 {
            let block = self.block(content);
            let count = left.min(block.len() as u64) as usize;
            file.write_all(&block[..count])?;
            left -= count as u64;
        }
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.set_modified(self.time())?;
        self.made.files += 1;
        self.made.bytes += size;
        Ok(())
    }

    fn block(&mut self, content: Content) -> [u8; 64] {
        let mut block = [b' '; 64];
        match content {
            Content::Noise => block.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&self.noise.next().to_le_bytes())),
            Content::Text => {
                let line = format!("{:016x} the quick brown fox jumps over the lazy dog", self.noise.next());
                block[..line.len()].copy_from_slice(line.as_bytes());
                block[63] = b'\n';
            }
        }
        block
    }

    /// Somewhere between 2001 and 2033, to the nanosecond.
    fn time(&mut self) -> SystemTime {
        let noise = self.noise.next();
        UNIX_EPOCH + Duration::new(1_000_000_000 + (noise >> 34), (noise % 1_000_000_000) as u32)
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_size_gives_the_same_files() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| generate(&dir.path().join(name), 8 << 20, &Interrupt::default()).unwrap();
        let (one, two) = (make("one"), make("two"));
        assert_eq!(one, two);
        assert!(one.bytes >= 8 << 20 && one.bytes < 12 << 20, "{one:?}");
        for name in ["large/0", "large/text", "small/0/1", "modes/400"] {
            let [left, right] = ["one", "two"].map(|tree| dir.path().join(tree).join(name));
            assert_eq!(fs::read(&left).unwrap(), fs::read(&right).unwrap(), "{name}");
            let [left, right] = [left, right].map(|path| fs::metadata(path).unwrap().modified().unwrap());
            assert_eq!(left, right, "{name}");
        }
    }

    #[test]
    fn an_interrupt_ends_it() {
        let (dir, interrupt) = (tempfile::tempdir().unwrap(), Interrupt::default());
        interrupt.set();
        let failure = generate(&dir.path().join("tree"), 1, &interrupt).unwrap_err();
        assert_eq!(failure.code, crate::failure::Code::Interrupted);
    }
}
