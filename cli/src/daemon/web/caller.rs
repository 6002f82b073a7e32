//! Whose program is at the other end of a connection over the loopback interface, where the system tells.

#[cfg_attr(target_os = "linux", path = "caller/linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "caller/portable.rs")]
mod system;

pub(super) use system::user_of;

/// Who owns a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "no system gives every answer")]
pub(super) enum Owner {
    /// This user.
    User(u32),
    /// The system lists no such connection: it is gone, or not of this machine.
    Nobody,
    /// The system does not tell.
    Unknown,
}
