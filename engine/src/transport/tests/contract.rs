//! What every connection promises, tested with one body over all carriers.

use super::*;

#[tokio::test]
async fn messages_cross_both_ways_at_every_size() {
    over_all(|a, b| async move {
        let (mut to_b, mut from_b) = a.take_control().unwrap();
        let (mut to_a, mut from_a) = b.take_control().unwrap();
        assert!(a.take_control().is_none());
        let sizes = [0, 1, 4, 5, 1_000, 16_383, 16_384, 16_385, 65_536, MIB, MESSAGE_BYTES_MAX];
        let messages: Vec<Bytes> = sizes.into_iter().map(pattern).collect();
        let send = async |sender: &mut ControlSender| {
            for message in &messages {
                sender.send(message.clone()).await.unwrap();
            }
        };
        let receive = async |receiver: &mut ControlReceiver| {
            for message in &messages {
                assert!(receiver.recv().await.unwrap().unwrap() == *message, "{} bytes", message.len());
            }
        };
        tokio::join!(send(&mut to_b), receive(&mut from_a), send(&mut to_a), receive(&mut from_b));
        let too_long = Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1]);
        assert!(matches!(to_b.send(too_long).await, Err(TransportError::MessageTooLong(_))));
        to_b.send(Bytes::from_static(b"still fine")).await.unwrap();
        assert_eq!(from_a.recv().await.unwrap().unwrap(), "still fine");
    })
    .await;
}

#[tokio::test]
async fn lanes_carry_bytes_both_ways_and_many_at_a_time() {
    over_all(|a, b| async move {
        let data = pattern(5 * MIB + 12_345);
        let through = async |from: &Connection, to: &Connection| {
            let (sent, lane) = tokio::join!(send_lane(from, &data), async { read_lane(to.accept_lane().await?).await });
            sent.unwrap();
            assert!(lane.unwrap() == data);
        };
        tokio::join!(through(&a, &b), through(&b, &a), through(&a, &b), through(&b, &a));
        let (sent, received) = (a.stats().bytes_sent, b.stats().bytes_received);
        assert!(sent >= 2 * data.len() as u64 && received >= 2 * data.len() as u64, "{sent} {received}");
    })
    .await;
}

#[tokio::test]
async fn small_buffers_lose_nothing() {
    over_all(|a, b| async move {
        let data = pattern(200_000);
        let reading = async {
            let mut lane = b.accept_lane().await.unwrap();
            let mut all = BytesMut::new();
            loop {
                let mut buffer = BytesMut::with_capacity(1_000);
                let room = buffer.capacity();
                let count = lane.read(&mut buffer).await.unwrap();
                assert!(count <= room && count == buffer.len());
                if count == 0 {
                    assert_eq!(lane.read(&mut buffer).await.unwrap(), 0, "the end stays the end");
                    return all;
                }
                all.extend_from_slice(&buffer);
            }
        };
        let (sent, all) = tokio::join!(send_lane(&a, &data), reading);
        sent.unwrap();
        assert!(all == data);
    })
    .await;
}

#[tokio::test]
async fn a_lane_that_was_not_finished_does_not_look_finished() {
    over_all(|a, b| async move {
        let mut lane = a.open_lane().await.unwrap();
        lane.send(pattern(100_000)).await.unwrap();
        let mut receiver = b.accept_lane().await.unwrap();
        let mut buffer = BytesMut::with_capacity(MIB);
        receiver.read(&mut buffer).await.unwrap();
        drop(lane);
        let rest = read_lane(receiver).await;
        assert!(matches!(rest, Err(TransportError::LaneReset)), "{rest:?}");
        let (mut to_b, _from_b) = a.take_control().unwrap();
        let (_to_a, mut from_a) = b.take_control().unwrap();
        to_b.send(Bytes::from_static(b"alive")).await.unwrap();
        assert_eq!(from_a.recv().await.unwrap().unwrap(), "alive");
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_goes_away_stops_its_sender() {
    over_all(|a, b| async move {
        let mut lane = a.open_lane().await.unwrap();
        lane.send(pattern(1_000)).await.unwrap();
        drop(b.accept_lane().await.unwrap());
        let piece = pattern(MIB);
        let error = loop {
            if let Err(error) = lane.send(piece.clone()).await {
                break error;
            }
        };
        assert!(matches!(error, TransportError::LaneReset), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn giving_up_a_wait_for_a_lane_does_not_lose_the_lane() {
    over_all(|a, b| async move {
        for _ in 0..3 {
            assert!(timeout(Duration::from_millis(1), a.accept_lane()).await.is_err());
        }
        let data = pattern(10_000);
        let (sent, lane) = tokio::join!(send_lane(&b, &data), async { read_lane(a.accept_lane().await?).await });
        sent.unwrap();
        assert!(lane.unwrap() == data);
    })
    .await;
}

#[tokio::test]
async fn exporters_agree_and_differ_by_connection_label_and_context() {
    over_all(|a, b| async move {
        let of_a = a.exporter(b"label", b"context").unwrap();
        assert_eq!(of_a, b.exporter(b"label", b"context").unwrap());
        assert_ne!(of_a, a.exporter(b"label", b"other").unwrap());
        assert_ne!(of_a, a.exporter(b"other", b"context").unwrap());
    })
    .await;
    let net = Net::new();
    let (one, _one) = net.pair(TransportKind::Tcp).await;
    let (two, _two) = net.pair(TransportKind::Tcp).await;
    assert_ne!(one.exporter(b"label", b"").unwrap(), two.exporter(b"label", b"").unwrap());
}

#[tokio::test]
async fn a_clean_close_ends_control_and_other_reasons_are_told() {
    for reason in [CloseReason::Done, CloseReason::Busy, CloseReason::Shutdown, CloseReason::Refused, CloseReason::Abandoned] {
        over_all(|a, b| async move {
            let (_to_a, mut from_a) = b.take_control().unwrap();
            a.close(reason);
            a.flushed().await;
            match (reason, from_a.recv().await) {
                (CloseReason::Done, Ok(None)) | (CloseReason::Refused, Err(TransportError::Refused)) => {}
                (sent, Err(TransportError::Closed(told))) => assert_eq!(sent, told),
                (sent, other) => panic!("{sent:?} became {other:?}"),
            }
            b.closed().await;
            assert!(b.open_lane().await.is_err() && b.accept_lane().await.is_err() && a.open_lane().await.is_err());
        })
        .await;
    }
}

#[tokio::test]
async fn who_closes_after_the_peer_keeps_the_peers_reason_and_has_no_goodbye_to_wait_for() {
    over_all(|a, b| async move {
        b.close(CloseReason::Busy);
        a.closed().await;
        a.close(CloseReason::Done);
        a.flushed().await;
        let error = a.closed().await;
        assert!(matches!(error, TransportError::Closed(CloseReason::Busy)), "{}: {error:?}", a.kind());
    })
    .await;
}

/// A goodbye must not wait behind what the network does not take.
#[tokio::test]
async fn a_close_in_the_middle_of_a_transfer_is_told_at_once() {
    over_all(|a, b| async move {
        let mut lane = a.open_lane().await.unwrap();
        let piece = pattern(MIB);
        while timeout(Duration::from_millis(50), lane.send(piece.clone())).await.is_ok() {}
        a.close(CloseReason::Shutdown);
        let told = timeout(LIMIT / 2, b.closed()).await.unwrap_or_else(|_| panic!("{} is silent", b.kind()));
        assert!(matches!(told, TransportError::Closed(CloseReason::Shutdown)), "{told:?}");
    })
    .await;
}

#[tokio::test]
async fn dropping_every_handle_is_not_success() {
    over_all(|a, b| async move {
        drop(a);
        let error = b.closed().await;
        assert!(matches!(error, TransportError::Closed(CloseReason::Abandoned)), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn everything_that_waits_ends_with_the_connection() {
    over_all(|a, b| async move {
        let (_to_b, mut from_b) = a.take_control().unwrap();
        let opening = async {
            let mut lane = b.open_lane().await.unwrap();
            lane.send(pattern(1)).await.unwrap();
            lane
        };
        let (_sender, lane) = tokio::join!(opening, a.accept_lane());
        let mut lane = lane.unwrap();
        lane.read(&mut BytesMut::with_capacity(10)).await.unwrap();
        let mut buffer = BytesMut::new();
        let waiting = async { tokio::join!(a.accept_lane(), from_b.recv(), lane.read(&mut buffer), a.closed()) };
        let (ended, ()) = tokio::join!(waiting, async {
            tokio::task::yield_now().await;
            b.close(CloseReason::Busy);
        });
        let busy = |error: &TransportError| matches!(error, TransportError::Closed(CloseReason::Busy));
        assert!(busy(&ended.0.err().unwrap()) && busy(&ended.1.unwrap_err()) && busy(&ended.2.unwrap_err()) && busy(&ended.3));
    })
    .await;
}
