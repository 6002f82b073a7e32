//! A fault in a mapped file becomes zeros and a flag, not the end of the process.
//!
//! When a mapped file shrinks (somebody truncates it) or cannot be read (the disk fails, the medium is pulled), touching its pages
//! raises SIGBUS. The handler here looks the address up in a table of our maps and lays zero pages over the rest of that map; the
//! interrupted instruction then reads zeros, and whoever checks what was read finds that it does not match its hash. libwayland
//! protects a compositor from its clients' shared memory in the same way (`wl_shm_buffer_begin_access`).
//!
//! # Invariants
//! - The handler only loads and stores atomics and calls `mmap`; it takes no lock and allocates nothing.
//! - A slot is read under its generation (a sequence lock): odd while it changes, different afterwards. The slot of the map that
//!   faulted cannot change, because the faulting thread is inside it; any slot that does change belongs to another map.
//! - A slot is cleared before its map is unmapped, so an address that the system gave to somebody else is never covered.
//! - A fault anywhere else goes to the handler that was there before.
#![allow(unsafe_code)]

use std::{
    io, mem, ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst},
    },
};

/// Most maps at once in this process. A gibibyte each, they are two tebibytes of address space; the table takes 80 KiB.
pub(super) const MAPS_MAX: usize = 2_048;

static REGISTRY: [Slot; MAPS_MAX] = [const { Slot::new() }; MAPS_MAX];
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

struct Slot {
    used: AtomicBool,
    generation: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    damaged: AtomicBool,
}

impl Slot {
    const fn new() -> Self {
        Self {
            used: AtomicBool::new(false),
            generation: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            damaged: AtomicBool::new(false),
        }
    }

    fn set(&self, start: usize, end: usize) {
        self.generation.fetch_add(1, SeqCst);
        self.start.store(start, SeqCst);
        self.end.store(end, SeqCst);
        self.generation.fetch_add(1, SeqCst);
    }

    /// The range, unless it is changing at this moment.
    fn range(&self) -> Option<(usize, usize)> {
        let before = self.generation.load(SeqCst);
        let range = (self.start.load(SeqCst), self.end.load(SeqCst));
        (before.is_multiple_of(2) && self.generation.load(SeqCst) == before).then_some(range)
    }
}

/// A place in the table, for as long as a map lives. Must be dropped before the map is unmapped.
#[derive(Debug)]
pub(super) struct Registration(usize);

impl Registration {
    /// Protects the map at `[start, start + length)`; installs the handler at the first call.
    pub(super) fn new(start: usize, length: usize) -> io::Result<Self> {
        install()?;
        let claimed = |slot: &Slot| slot.used.compare_exchange(false, true, SeqCst, SeqCst).is_ok();
        let index = REGISTRY
            .iter()
            .position(claimed)
            .ok_or_else(|| io::Error::new(io::ErrorKind::QuotaExceeded, format!("more than {MAPS_MAX} files are mapped")))?;
        REGISTRY[index].damaged.store(false, SeqCst);
        REGISTRY[index].set(start, start + length);
        Ok(Self(index))
    }

    /// Whether a fault has been covered with zeros.
    pub(super) fn is_damaged(&self) -> bool {
        REGISTRY[self.0].damaged.load(SeqCst)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        REGISTRY[self.0].set(0, 0);
        REGISTRY[self.0].used.store(false, SeqCst);
    }
}

/// Size of a page of memory.
pub(super) fn page_bytes() -> usize {
    static PAGE: OnceLock<usize> = OnceLock::new();
    *PAGE.get_or_init(|| {
        // SAFETY: sysconf has no preconditions.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(bytes).unwrap_or(4_096)
    })
}

fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| install_now().map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL)));
    installed.map_err(io::Error::from_raw_os_error)
}

fn install_now() -> io::Result<()> {
    // The handler may not ask for the page size itself the first time: a lock could be held by the thread that it interrupted.
    page_bytes();
    // SAFETY: sigaction is plain data for which all zeros is a valid value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: as above. The box is never freed: the handler may read it at any time.
    let previous = Box::leak(Box::new(unsafe { mem::zeroed::<libc::sigaction>() }));
    // SAFETY: reading the current action into a valid place.
    let read = unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), previous) };
    // Known before ours is in force, so that a fault in between finds it.
    PREVIOUS.store(previous, SeqCst);
    // SAFETY: the action is initialised and its handler has the signature that SA_SIGINFO asks for.
    let set = unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) };
    if read == 0 && set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let errno = platform::errno();
    if !cover(platform::fault_address(info)) {
        chain(signal, info, context);
    }
    platform::set_errno(errno);
}

/// Lays zero pages over the rest of the map that holds `address`; whether there is one.
fn cover(address: usize) -> bool {
    let holder = REGISTRY.iter().find_map(|slot| {
        let (start, end) = slot.range()?;
        (start <= address && address < end).then_some((slot, end))
    });
    let Some((slot, end)) = holder else { return false };
    // Looked up at installation, so this only reads.
    let page = address & !(page_bytes() - 1);
    let length = end - page;
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANON;
    // SAFETY: the range lies in a live map of ours (see the invariants above), which nobody else may replace.
    let zeros = unsafe { libc::mmap(page as *mut libc::c_void, length, libc::PROT_READ, flags, -1, 0) };
    slot.damaged.store(true, SeqCst);
    zeros != libc::MAP_FAILED
}

fn chain(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the pointer is null or a leaked box that was filled before our handler was installed.
    let previous = unsafe { PREVIOUS.load(SeqCst).as_ref() };
    let Some(previous) = previous else { return die(signal) };
    if previous.sa_sigaction == libc::SIG_DFL || previous.sa_sigaction == libc::SIG_IGN {
        return die(signal);
    }
    let handler = previous.sa_sigaction as *const ();
    if previous.sa_flags & libc::SA_SIGINFO != 0 {
        type Full = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: SA_SIGINFO says that the handler has this signature.
        let handler = unsafe { mem::transmute::<*const (), Full>(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: without SA_SIGINFO a handler takes the signal's number alone.
        let handler = unsafe { mem::transmute::<*const (), extern "C" fn(libc::c_int)>(handler) };
        handler(signal);
    }
}

/// Gives the signal its default action; returning then repeats the fault, and the process ends as it would have without us.
fn die(signal: libc::c_int) {
    // SAFETY: restoring the default action is always allowed.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// What differs between systems, in one place.
mod platform {
    /// Address that faulted.
    pub(super) fn fault_address(info: *const libc::siginfo_t) -> usize {
        // SAFETY: the system passes a valid pointer to a handler that was installed with SA_SIGINFO.
        let info = unsafe { &*info };
        // SAFETY: for SIGBUS the address field is the one that is filled in.
        let address = unsafe { info.si_addr() };
        address as usize
    }

    fn errno_place() -> *mut libc::c_int {
        #[cfg(target_os = "macos")]
        // SAFETY: returns this thread's errno; no preconditions.
        let place = unsafe { libc::__error() };
        #[cfg(not(target_os = "macos"))]
        // SAFETY: returns this thread's errno; no preconditions.
        let place = unsafe { libc::__errno_location() };
        place
    }

    pub(super) fn errno() -> libc::c_int {
        // SAFETY: the place is this thread's own and always valid.
        unsafe { *errno_place() }
    }

    pub(super) fn set_errno(value: libc::c_int) {
        // SAFETY: as above.
        unsafe { *errno_place() = value };
    }
}
