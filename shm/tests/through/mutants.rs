//! Planted bugs: a story that goes well without any must go wrong with each.

use ringlane_shm::through::mutant::{self, Mutant};

use crate::death::{quiet, story};

#[test]
fn every_planted_bug_is_found() {
    quiet();
    for mutant in Mutant::ALL {
        let found = (1..=150).find_map(|seed| {
            mutant::set(Some(mutant));
            let ended = story(seed);
            mutant::set(None);
            ended.err().map(|wrong| (seed, wrong))
        });
        let (seed, wrong) = found.unwrap_or_else(|| panic!("{mutant:?} is not found"));
        println!("{mutant:?}, seed {seed}: {wrong}");
    }
}
