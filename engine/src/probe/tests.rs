use super::*;
use std::{fs, net::SocketAddr, path::PathBuf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(20);

fn file(dir: &tempfile::TempDir, bytes: usize) -> PathBuf {
    let path = dir.path().join("file");
    fs::write(&path, noise(bytes)).unwrap();
    path
}

#[test]
fn a_rate_needs_bytes_and_time() {
    assert_eq!(Rate::default().bits_per_s(), None);
    assert_eq!(Rate { bytes: 1, elapsed: Duration::ZERO }.bits_per_s(), None);
    assert_eq!(Rate { bytes: 125, elapsed: Duration::from_millis(1) }.bits_per_s(), Some(1_000_000));
}

#[test]
fn reading_ends_with_the_files_or_with_the_bytes_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let files = [file(&dir, 3 << 20)];
    assert_eq!(disk_read(&files, u64::MAX, LONG, Cache::Warm).unwrap().bytes, 3 << 20);
    assert_eq!(disk_read(&files, 1 << 20, LONG, Cache::Warm).unwrap().bytes, 1 << 20);
}

#[cfg(target_os = "linux")]
#[test]
fn a_cold_read_finds_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(disk_read(&[file(&dir, 2 << 20)], u64::MAX, LONG, Cache::Cold).unwrap().bytes, 2 << 20);
}

#[test]
fn writing_is_bounded_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let rate = disk_write(dir.path(), 2 << 20, LONG).unwrap();
    assert_eq!(rate.bytes, 2 << 20);
    assert!(rate.elapsed > Duration::ZERO);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_processor_hashes_and_seals() {
    for rate in [hash(Threads::One, SHORT), hash(Threads::All, SHORT), seal(Threads::One, SHORT), seal(Threads::All, SHORT)] {
        assert!(rate.bits_per_s().is_some() && rate.elapsed >= SHORT, "{rate:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_over_tcp_has_arrived() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut out = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut inward, _) = listener.accept().await.unwrap();
    let (sent, received) = tokio::join!(tcp_send(&mut out, SHORT), tcp_receive(&mut inward, LONG));
    assert_eq!(sent.unwrap().bytes, received.unwrap().bytes);
}

async fn udp_pair() -> (UdpSocket, UdpSocket, SocketAddr) {
    let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = receiver.local_addr().unwrap();
    (UdpSocket::bind("127.0.0.1:0").await.unwrap(), receiver, to)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_arrive_and_no_more_than_were_sent() {
    let (sender, receiver, to) = udp_pair().await;
    let token = [7; 32];
    let (sent, received) = tokio::join!(udp_send(&sender, to, &token, SHORT, Some(50_000_000)), udp_receive(&receiver, &token, LONG));
    let (sent, received) = (sent.unwrap(), received.unwrap());
    assert!(received.count > 0 && received.count <= sent.count, "{received:?} of {sent:?}");
    assert_eq!(received.rate.bytes, received.count * UDP_DATAGRAM_BYTES as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pace_is_kept() {
    let (sender, _receiver, to) = udp_pair().await;
    let sent = udp_send(&sender, to, &[7; 32], Duration::from_millis(200), Some(20_000_000)).await.unwrap();
    // A batch of half a megabit may go beyond it.
    assert!(sent.rate.bytes * 8 <= 20_000_000 / 4, "{sent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_of_strangers_do_not_count() {
    let (sender, receiver, to) = udp_pair().await;
    let (sent, received) =
        tokio::join!(udp_send(&sender, to, &[8; 32], SHORT, Some(1_000_000)), udp_receive(&receiver, &[7; 32], Duration::from_millis(100)));
    assert!(sent.unwrap().count > 0);
    assert_eq!(received.unwrap(), Datagrams::default());
}
