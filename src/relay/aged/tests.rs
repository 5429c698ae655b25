use super::*;
use proptest::prelude::*;

/// A value that says whether it may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Free(bool);

impl Evict for Free {
    fn may_go(&self) -> bool {
        self.0
    }
}

const IDLE_TICKS: u32 = 10;
const IDLE: Duration = Duration::from_secs(1);

fn table(entries_max: usize) -> (Instant, Aged<u32, Free>) {
    let start = Instant::now();
    let limits = Limits { setting: "limits.test", entries_max, idle_max: IDLE };
    (start, Aged::new(limits, start))
}

fn aged(table: &mut Aged<u32, Free>, now: Instant) -> Vec<u32> {
    let mut out = Vec::new();
    while table.age(now, &mut out) {}
    out.into_iter().map(|(key, _)| key).collect()
}

fn put(table: &mut Aged<u32, Free>, key: u32, free: bool, now: Instant) -> Option<u32> {
    let tick = table.tick(now);
    let inserted = table.insert(key, Free(free), tick).expect("somebody may go");
    inserted.left.map(|(key, _)| key)
}

#[test]
fn a_full_table_lets_the_longest_idle_entry_go() {
    let (start, mut table) = table(3);
    for key in 0..3 {
        put(&mut table, key, true, start + TICK_MIN * key);
    }
    let first = table.find(&0).expect("it is there");
    table.touch(first, table.tick(start + TICK_MIN * 5));
    assert_eq!(put(&mut table, 3, true, start + TICK_MIN * 6), Some(1));
    assert_eq!(put(&mut table, 4, true, start + TICK_MIN * 6), Some(2));
    assert_eq!(put(&mut table, 5, true, start + TICK_MIN * 6), Some(0));
    assert_eq!(table.counters().evicted, 3);
}

#[test]
fn a_table_of_unacknowledged_entries_refuses_and_names_its_limit() {
    let (start, mut table) = table(2);
    put(&mut table, 0, false, start);
    put(&mut table, 1, false, start);
    let tick = table.tick(start + IDLE * 5);
    let full = table.insert(2, Free(true), tick).expect_err("nobody may go");
    assert_eq!(full, Full { setting: "limits.test", limit: 2 });
    assert!(full.to_string().contains("raise limits.test"), "{full}");
    assert_eq!((table.len(), table.parked(), table.counters().refused), (2, 2, 1));
}

#[test]
fn what_could_not_go_may_go_as_soon_as_it_is_acknowledged() {
    let (start, mut table) = table(2);
    put(&mut table, 0, false, start);
    put(&mut table, 1, true, start + TICK_MIN);
    let later = start + IDLE * 3;
    assert_eq!(aged(&mut table, later), [1]);
    assert_eq!((table.parked(), table.next_deadline()), (1, None));
    let id = table.find(&0).expect("it is kept");
    table.get_mut(id).expect("it is kept").0 = true;
    assert!(table.next_deadline().is_some_and(|next| next <= later));
    assert_eq!(aged(&mut table, later), [0]);
    assert!(table.is_empty() && table.get(id).is_none());
}

#[test]
fn nothing_expires_early_and_nothing_two_ticks_late() {
    for offset in [0, 1, 50, 99] {
        let (start, mut table) = table(1);
        let last = start + Duration::from_millis(1_000 + offset);
        put(&mut table, 7, true, last);
        assert_eq!(aged(&mut table, last + IDLE - Duration::from_nanos(1)), [] as [u32; 0]);
        assert_eq!(aged(&mut table, last + IDLE + TICK_MIN * 2), [7], "{offset} ms");
    }
}

#[test]
fn a_touch_in_time_keeps_an_entry_for_ever() {
    let (start, mut table) = table(1);
    put(&mut table, 7, true, start);
    let id = table.find(&7).expect("it is there");
    for second in 1..1_000 {
        let now = start + IDLE * second - TICK_MIN;
        table.touch(id, table.tick(now));
        assert_eq!(aged(&mut table, now), [] as [u32; 0]);
    }
}

#[test]
fn one_call_of_age_looks_at_a_bounded_number_of_entries() {
    let (start, mut table) = table(3 * AGE_VISITS_MAX);
    for key in 0..2 * AGE_VISITS_MAX as u32 + 1 {
        put(&mut table, key, true, start);
    }
    let (now, mut out) = (start + IDLE * 2, Vec::new());
    assert!(table.age(now, &mut out));
    assert_eq!(out.len(), AGE_VISITS_MAX);
    assert!(table.next_deadline().is_some_and(|next| next <= now), "it asks to be called again");
    assert!(table.age(now, &mut out) && !table.age(now, &mut out));
    assert!(table.is_empty());
}

#[test]
fn the_id_of_an_entry_that_left_names_nothing() {
    let (start, mut table) = table(1);
    put(&mut table, 1, true, start);
    let old = table.find(&1).expect("it is there");
    put(&mut table, 2, true, start);
    table.touch(old, table.tick(start + IDLE));
    assert!(table.get(old).is_none() && table.get_mut(old).is_none());
    assert!(table.remove(old).is_none() && table.key(old).is_none());
    assert_eq!(table.idle(table.find(&2).expect("it is there"), start), Some(Duration::ZERO));
}

#[test]
fn an_idle_limit_of_years_makes_no_larger_wheel() {
    let start = Instant::now();
    let idle_max = Duration::MAX;
    let mut table = Aged::new(Limits { setting: "ageing", entries_max: 9, idle_max }, start);
    put(&mut table, 1, true, start);
    assert!(aged(&mut table, start + IDLE_MAX - Duration::from_secs(1)).is_empty());
    assert_eq!(aged(&mut table, start + IDLE_MAX + IDLE_MAX / 1_000), [1]);
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u32),
    Insert(u32, bool),
    Touch(u32),
    Free(u32, bool),
    Remove(u32),
    Age,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0_u32..24;
    prop_oneof![
        3 => (0_u32..500).prop_map(Step::Wait),
        1 => (0_u32..6_000).prop_map(Step::Wait),
        8 => (key.clone(), prop::bool::weighted(0.7)).prop_map(|(k, free)| Step::Insert(k, free)),
        8 => key.clone().prop_map(Step::Touch),
        4 => (key.clone(), prop::bool::weighted(0.7)).prop_map(|(k, free)| Step::Free(k, free)),
        1 => key.prop_map(Step::Remove),
        3 => Just(Step::Age),
    ]
}

/// The same table, without any cleverness: key, may go, last tick.
#[derive(Default)]
struct Naive {
    entries: Vec<(u32, bool, u32)>,
}

impl Naive {
    fn at(&self, key: u32) -> Option<usize> {
        self.entries.iter().position(|entry| entry.0 == key)
    }

    /// Whether this key was a right choice for eviction: as far as idle times are told apart.
    fn check_evicted(&self, key: u32, base: u32) -> Result<(), TestCaseError> {
        let (_, free, last) = self.entries[self.at(key).expect("who left was there")];
        prop_assert!(free, "{key} has unacknowledged data");
        let oldest = self.entries.iter().filter(|entry| entry.1).map(|entry| entry.2.max(base));
        prop_assert_eq!(Some(last.max(base)), oldest.min());
        Ok(())
    }

    fn insert(
        &mut self,
        (key, free, tick): (u32, bool, u32),
        limit: usize,
        got: Result<Option<u32>, Full>,
    ) -> Result<(), TestCaseError> {
        let base = tick.saturating_sub((IDLE_TICKS + 2).next_power_of_two() - 1);
        let known = self.at(key);
        match got {
            Ok(Some(left)) if known.is_some() => prop_assert_eq!(left, key),
            Ok(Some(left)) => {
                prop_assert_eq!(self.entries.len(), limit);
                self.check_evicted(left, base)?;
            }
            Ok(None) => prop_assert!(known.is_none() && self.entries.len() < limit),
            Err(_) => {
                prop_assert!(known.is_none() && self.entries.len() == limit);
                prop_assert!(self.entries.iter().all(|entry| !entry.1));
                return Ok(());
            }
        }
        if let Ok(Some(left)) = got {
            self.entries.retain(|entry| entry.0 != left);
        }
        self.entries.push((key, free, tick));
        Ok(())
    }

    fn age(&mut self, present: u32) -> Vec<u32> {
        let due = |&(_, free, last): &(u32, bool, u32)| free && present - last > IDLE_TICKS;
        let (gone, kept) = self.entries.drain(..).partition(due);
        self.entries = kept;
        Vec::from_iter(gone).into_iter().map(|entry: (u32, bool, u32)| entry.0).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn it_does_what_a_naive_table_does(
        limit in 1_usize..20,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let (start, mut table) = table(limit);
        let (mut naive, mut now) = (Naive::default(), start);
        for step in steps {
            let tick = table.tick(now);
            match step {
                Step::Wait(millis) => now += Duration::from_millis(u64::from(millis)),
                Step::Insert(key, free) => {
                    let got = table.insert(key, Free(free), tick);
                    let got = got.map(|inserted| inserted.left.map(|(key, _)| key));
                    naive.insert((key, free, tick.0), limit, got)?;
                }
                Step::Touch(key) => {
                    let (id, at) = (table.find(&key), naive.at(key));
                    prop_assert_eq!(id.is_some(), at.is_some());
                    if let Some((id, at)) = id.zip(at) {
                        table.touch(id, tick);
                        naive.entries[at].2 = tick.0;
                    }
                }
                Step::Free(key, free) => {
                    if let Some((id, at)) = table.find(&key).zip(naive.at(key)) {
                        table.get_mut(id).expect("it was found").0 = free;
                        naive.entries[at].1 = free;
                    }
                }
                Step::Remove(key) => {
                    let gone = table.find(&key).and_then(|id| table.remove(id));
                    prop_assert_eq!(gone.is_some(), naive.at(key).is_some());
                    naive.entries.retain(|entry| entry.0 != key);
                }
                Step::Age => {
                    let (mut got, mut want) = (aged(&mut table, now), naive.age(tick.0));
                    got.sort_unstable();
                    want.sort_unstable();
                    prop_assert_eq!(got, want);
                    prop_assert!(table.next_deadline().is_none_or(|next| next > now));
                }
            }
            prop_assert_eq!(table.len(), naive.entries.len());
            let first = naive.entries.iter().filter(|entry| entry.1).map(|entry| entry.2).min();
            if let Some(first) = first {
                let due = start + TICK_MIN * (first + IDLE_TICKS + 1);
                let next = table.next_deadline();
                prop_assert!(next.is_some_and(|next| next <= due.max(now)), "{:?} {:?}", next, due);
            }
            let kept = naive.entries.iter().filter(|entry| !entry.1).count();
            prop_assert!(table.parked() <= kept);
        }
    }
}
