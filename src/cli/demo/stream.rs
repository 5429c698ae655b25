//! Bytes that everybody who knows the seed can make again, at any place of the stream.

/// A position in an endless stream of bytes that follow from a seed.
#[derive(Clone, Debug)]
pub struct Stream {
    seed: u64,
    at: u64,
}

/// The mixer of SplitMix64.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Stream {
    /// The beginning of the stream of `seed`.
    pub fn new(seed: u64) -> Stream {
        Stream { seed: mix(seed), at: 0 }
    }

    /// How many bytes were taken.
    pub fn at(&self) -> u64 {
        self.at
    }

    fn word(&self, index: u64) -> [u8; 8] {
        mix(self.seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15))).to_le_bytes()
    }

    /// The next bytes.
    pub fn fill(&mut self, into: &mut [u8]) {
        let mut index = self.at / 8;
        let skip = (self.at % 8) as usize;
        self.at += into.len() as u64;
        let head = into.len().min((8 - skip) % 8);
        let (first, rest) = into.split_at_mut(head);
        if head > 0 {
            first.copy_from_slice(&self.word(index)[skip..skip + head]);
            index += 1;
        }
        let (words, tail) = rest.as_chunks_mut::<8>();
        for word in words {
            *word = self.word(index);
            index += 1;
        }
        tail.copy_from_slice(&self.word(index)[..tail.len()]);
    }

    /// The next number below `bound`; takes eight bytes.
    pub fn below(&mut self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let mut whole = vec![0; 1000];
        Stream::new(7).fill(&mut whole);
        for cut in [1, 3, 7, 8, 9, 64, 999] {
            let mut again = vec![0; 1000];
            let mut stream = Stream::new(7);
            again.chunks_mut(cut).for_each(|piece| stream.fill(piece));
            assert_eq!(again, whole, "cut into {cut}");
            assert_eq!(stream.at(), 1000);
        }
    }

    #[test]
    fn two_seeds_give_two_streams() {
        let (mut a, mut b) = ([0; 16], [0; 16]);
        Stream::new(1).fill(&mut a);
        Stream::new(2).fill(&mut b);
        assert_ne!(a, b);
    }
}
