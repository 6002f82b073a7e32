//! Linux lists every TCP connection with the user that owns it (`/proc/net/tcp`, `tcp6`; proc(5)): the caller's end has our address as its
//! remote one.

use super::Owner;
use std::net::{IpAddr, SocketAddr};

/// The user who owns the other end of a connection from `peer` to `local`, both on this machine.
pub(in crate::daemon::web) fn user_of(peer: SocketAddr, local: SocketAddr) -> Owner {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let wanted = [(hex(peer), hex(local)), (hex(mapped(peer)), hex(mapped(local)))];
    let found = tables.iter().filter_map(|table| std::fs::read_to_string(table).ok()).find_map(|table| owner(&table, &wanted));
    found.map_or(Owner::Nobody, Owner::User)
}

/// The user in the line of the connection between one of these pairs.
fn owner(table: &str, wanted: &[(String, String)]) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (from, to) = (words.nth(1)?, words.next()?);
        let is_wanted = wanted.iter().any(|(peer, local)| from == peer && to == local);
        if is_wanted { words.nth(4)?.parse().ok() } else { None }
    })
}

/// An address as the tables write it: words of 32 bits as they lie in memory, and the port.
fn hex(address: SocketAddr) -> String {
    let bytes = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = bytes.as_chunks::<4>().0.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word)));
    format!("{}:{:04X}", words.collect::<String>(), address.port())
}

/// The same address as a program sees it that uses IPv6 for both.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_line_of_the_table_names_its_user() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1E3D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n\
            \x20  1: 0100007F:A1B2 0100007F:1E3D 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 20 4 30 10 -1\n";
        let pair = |from: &str, to: &str| [(from.to_owned(), to.to_owned())];
        assert_eq!(owner(table, &pair("0100007F:A1B2", "0100007F:1E3D")), Some(1000));
        assert_eq!(owner(table, &pair("0100007F:A1B3", "0100007F:1E3D")), None);
    }

    #[test]
    fn the_system_says_that_a_connection_of_this_test_is_this_user_s() {
        let own = Owner::User(rustix::process::geteuid().as_raw());
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let local = listener.local_addr().unwrap();
            let stream = TcpStream::connect(local).unwrap();
            assert_eq!(user_of(stream.local_addr().unwrap(), local), own, "{address}");
            let free = SocketAddr::new(local.ip(), 1);
            assert_eq!(user_of(free, local), Owner::Nobody, "{address}");
        }
    }
}
