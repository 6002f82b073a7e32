//! `small`: many small objects to a peer, counted in objects a second.

use super::{
    args::SmallArgs,
    bed::Bed,
    block_on,
    console::Console,
    control::Peer,
    link::{push_once, show},
    measurement::{Row, Unit, Wire},
};
use crate::failure::{Code, Failure};

pub(super) fn small(console: &Console, args: &SmallArgs) -> Result<Code, Failure> {
    block_on(async {
        let bed = Bed::new()?;
        console.step(&format!("making {} files of 1 to 16 KiB", args.count))?;
        let data = bed.small_files(args.count)?;
        let mut peer = Peer::reach(args.target.as_deref()).await?;
        let name = |over: &super::measurement::Over| format!("push of {} x 1-16 KiB, {}", args.count, over.name());
        let mut rows: Vec<Row> = args.transport.iter().map(|over| Row::new(name(over), Unit::Objects, Wire::Encrypted)).collect();
        for round in 1..=args.rounds {
            console.step(&format!("round {round} of {}", args.rounds))?;
            for (row, over) in rows.iter_mut().zip(&args.transport) {
                let mut sample = push_once(console, &bed, &mut peer, *over, &data).await?;
                sample.rate = f64::from(args.count) / sample.elapsed.as_secs_f64().max(1e-6);
                row.samples.push(sample);
            }
        }
        peer.part().await;
        show(console, "small", args.rounds, &rows.iter().collect::<Vec<_>>(), None)
    })
}
