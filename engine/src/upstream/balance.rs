//! Balancing: owns the order in which a server's endpoints are tried for one message. A function of what is asked for, of
//! the endpoints' loads and of a number that is drawn for it; never a connection, never a clock.
//!
//! ```text
//! round robin      each is first in turn, the others follow in theirs
//! least in flight  by exchanges in flight; among equals in turn, so that idle endpoints share
//! two choices      two are drawn, the one with fewer in flight is first, the other second, the rest in turn
//! affinity         by highest random weight (rendezvous hashing): each client has an order of its own, in which the place of
//!                  every other endpoint stays when one comes or goes, so that only what it had, 1/n, moves
//! ```

use mcp_config::Balance;

/// Most endpoints that a server has at a time, discovered ones included: the bound of `servers[].endpoints`, of a metric's
/// label set and of a row of breakers.
pub(crate) const MAX_ENDPOINTS: usize = 64;

/// What there is to choose from.
pub(super) trait Choice {
    /// Endpoints, at most [`MAX_ENDPOINTS`].
    fn count(&self) -> usize;
    /// Whether an endpoint can serve at the moment.
    fn is_usable(&self, place: usize) -> bool;
    /// Whether an exchange would have to wait for another's end.
    fn is_full(&self, place: usize) -> bool;
    /// Exchanges in flight.
    fn load(&self, place: usize) -> u32;
    /// What names the endpoint in every process and at every time.
    fn key(&self, place: usize) -> u32;
}

/// Places of usable endpoints, the first to be tried first.
pub(super) struct Order {
    places: [u8; MAX_ENDPOINTS],
    count: u8,
    next: u8,
}

impl Iterator for Order {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let place = *self.places[..usize::from(self.count)].get(usize::from(self.next))?;
        self.next += 1;
        Some(place.into())
    }
}

/// Puts usable endpoints in order. `turn` counts up by one with each message, `random` is drawn anew for each, `client` is
/// the client that keeps to its endpoint, where it does.
pub(super) fn order(
    choice: &impl Choice,
    balance: Balance,
    turn: usize,
    random: u64,
    client: Option<&[u8]>,
) -> Order {
    let mut order = Order { places: [0; MAX_ENDPOINTS], count: 0, next: 0 };
    let count = choice.count().min(MAX_ENDPOINTS);
    let first = if count == 0 { 0 } else { turn % count };
    for place in (first..count).chain(0..first).filter(|&place| choice.is_usable(place)) {
        order.places[usize::from(order.count)] = place as u8;
        order.count += 1;
    }
    let places = &mut order.places[..usize::from(order.count)];
    if places.len() < 2 {
        return order;
    }
    if let Some(client) = client {
        let client = hash(&[client]);
        places.sort_unstable_by_key(|&place| {
            std::cmp::Reverse(mix(u64::from(client) << 32 | u64::from(choice.key(place.into()))))
        });
        return order;
    }
    // Nobody waits for one endpoint while another could take the exchange at once.
    places.sort_by_key(|&place| choice.is_full(place.into()));
    let full = places.iter().filter(|&&place| choice.is_full(place.into())).count();
    let free = places.len() - full;
    let places = if free < 2 { return order } else { &mut places[..free] };
    match balance {
        Balance::RoundRobin => {}
        Balance::LeastInFlight => places.sort_by_key(|&place| choice.load(place.into())),
        Balance::TwoChoices => {
            // Both halves of the draw are far longer than the remainder, so that no place is favoured.
            let one = (random >> 32) as usize % places.len();
            let other = (one + 1 + (random as u32) as usize % (places.len() - 1)) % places.len();
            let fewer_first = choice.load(places[one].into()) <= choice.load(places[other].into());
            let (first, second) = if fewer_first { (one, other) } else { (other, one) };
            places.swap(0, first);
            // What stood first may have been the second choice.
            let second = if second == 0 { first } else { second };
            places.swap(1, second);
        }
    }
    order
}

/// A number that stands for texts in every process of every build, so that all gateways send a client to one endpoint: FNV-1a,
/// mixed, because it alone hardly spreads short texts.
pub(super) fn hash(parts: &[&[u8]]) -> u32 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for &byte in *part {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        // Parts do not run into one another.
        state = (state ^ 0xff).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (mix(state) >> 32) as u32
}

/// Spreads a number over all bits (SplitMix64's finalizer).
pub(super) fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fleet {
        loads: Vec<u32>,
        down: Vec<usize>,
        full: Vec<usize>,
        /// Keys are the hashes of these numbers.
        names: Vec<u32>,
    }

    impl Fleet {
        fn new(count: usize) -> Self {
            Fleet {
                loads: vec![0; count],
                down: Vec::new(),
                full: Vec::new(),
                names: (0..count as u32).collect(),
            }
        }
    }

    impl Choice for Fleet {
        fn count(&self) -> usize {
            self.loads.len()
        }

        fn is_usable(&self, place: usize) -> bool {
            !self.down.contains(&place)
        }

        fn is_full(&self, place: usize) -> bool {
            self.full.contains(&place)
        }

        fn load(&self, place: usize) -> u32 {
            self.loads[place]
        }

        fn key(&self, place: usize) -> u32 {
            hash(&[&self.names[place].to_be_bytes()])
        }
    }

    const POLICIES: [Balance; 3] = [Balance::RoundRobin, Balance::LeastInFlight, Balance::TwoChoices];

    /// A different draw each time.
    fn draw(number: usize) -> u64 {
        mix((number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Whatever is chosen: every usable endpoint is in the order once, no other is.
    #[test]
    fn an_order_names_each_usable_endpoint_once() {
        for count in [0, 1, 2, 3, 5, 64] {
            for number in 0..200 {
                let mut fleet = Fleet::new(count);
                fleet
                    .loads
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, load)| *load = (draw(number + i) % 4) as u32);
                fleet.down = (0..count).filter(|place| draw(number * 64 + place).is_multiple_of(3)).collect();
                fleet.full = (0..count).filter(|place| draw(number * 65 + place).is_multiple_of(3)).collect();
                let client = number.to_be_bytes();
                for balance in POLICIES {
                    for client in [None, Some(&client[..])] {
                        let mut places: Vec<_> =
                            order(&fleet, balance, number, draw(number), client).collect();
                        places.sort_unstable();
                        let usable: Vec<_> = (0..count).filter(|place| !fleet.down.contains(place)).collect();
                        assert_eq!(places, usable, "{balance:?} of {count}, draw {number}");
                    }
                }
            }
        }
    }

    /// With nothing in flight every policy is fair: each endpoint is first equally often.
    #[test]
    fn equal_endpoints_are_first_equally_often() {
        const ROUNDS: usize = 30_000;
        for balance in POLICIES {
            let fleet = Fleet::new(5);
            let mut first = [0usize; 5];
            for number in 0..ROUNDS {
                first[order(&fleet, balance, number, draw(number), None).next().unwrap()] += 1;
            }
            // Six standard deviations of a binomial distribution; in turn it is exact.
            for count in first {
                assert!(count.abs_diff(ROUNDS / 5) < 420, "{balance:?}: {first:?}");
            }
        }
    }

    #[test]
    fn the_least_loaded_is_first_and_the_busiest_of_two_never() {
        let fleet = Fleet { loads: vec![3, 1, 2], ..Fleet::new(3) };
        for turn in 0..3 {
            let places: Vec<_> = order(&fleet, Balance::LeastInFlight, turn, 0, None).collect();
            assert_eq!(places, [1, 2, 0]);
        }
        let mut first = [0; 3];
        for number in 0..3000 {
            let mut two = order(&fleet, Balance::TwoChoices, number, draw(number), None);
            let (one, other) = (two.next().unwrap(), two.next().unwrap());
            assert!(fleet.loads[one] <= fleet.loads[other]);
            first[one] += 1;
        }
        // The busiest is never first; of the three pairs the idlest wins two.
        assert_eq!(first[0], 0);
        assert!(first[1] > 1800 && first[2] > 800, "{first:?}");
    }

    /// Waiting is the last resort, but a client that keeps to its endpoint waits there.
    #[test]
    fn a_full_endpoint_is_tried_after_those_that_are_not() {
        let fleet = Fleet { full: vec![0, 2], ..Fleet::new(4) };
        for balance in POLICIES {
            for number in 0..50 {
                let places: Vec<_> = order(&fleet, balance, number, draw(number), None).collect();
                assert!(fleet.full.iter().all(|full| places[2..].contains(full)), "{balance:?}: {places:?}");
            }
        }
        let all = (0..50u32).map(|client| {
            order(&fleet, Balance::RoundRobin, 0, 0, Some(&client.to_be_bytes())).next().unwrap()
        });
        assert!(all.into_iter().any(|place| fleet.full.contains(&place)));
    }

    /// What rendezvous hashing is for: a new endpoint takes its share from all, and nothing else moves.
    #[test]
    fn a_client_keeps_its_endpoint_unless_that_one_goes() {
        const CLIENTS: usize = 10_000;
        let place = |fleet: &Fleet, client: usize| {
            order(fleet, Balance::RoundRobin, client, 0, Some(&client.to_be_bytes())).next().unwrap()
        };
        let (ten, eleven) = (Fleet::new(10), Fleet::new(11));
        let mut moved = 0;
        let mut shares = [0usize; 11];
        for client in 0..CLIENTS {
            let (before, after) = (place(&ten, client), place(&eleven, client));
            shares[after] += 1;
            if before != after {
                assert_eq!(after, 10, "a client moved between endpoints that were there before");
                moved += 1;
            }
        }
        assert!((moved as usize).abs_diff(CLIENTS / 11) < 200, "{moved}");
        assert!(shares.iter().all(|share| share.abs_diff(CLIENTS / 11) < 200), "{shares:?}");

        let without = Fleet { down: vec![4], ..Fleet::new(10) };
        for client in 0..CLIENTS {
            let before = place(&ten, client);
            assert!(before == 4 || place(&without, client) == before);
        }
    }

    /// Order in the list means nothing: records of sessions are shared by gateways that learn of endpoints at other times.
    #[test]
    fn every_gateway_has_the_same_order_for_a_client() {
        let one = Fleet::new(6);
        let other = Fleet { names: vec![5, 3, 1, 0, 2, 4], ..Fleet::new(6) };
        for client in 0..500u32 {
            let names = |fleet: &Fleet| -> Vec<u32> {
                let places = order(fleet, Balance::TwoChoices, 7, 7, Some(&client.to_be_bytes()));
                places.map(|place| fleet.names[place]).collect()
            };
            assert_eq!(names(&one), names(&other));
        }
    }

    #[test]
    fn a_hash_is_the_same_in_every_build() {
        assert_eq!(hash(&[b"http://127.0.0.1:3001/mcp"]), 0x53ba_3dd0);
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
    }
}
