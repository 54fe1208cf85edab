//! Which node of a cluster serves which slot: owns the table of the 16,384 slots. Never a connection, and never a decision
//! to ask.
//!
//! Invariant: every entry of `owners` is [`NOBODY`] or the place of a node that is there; a node's place stays its own
//! until a table without it has been taken over.

use super::layout::Layout;
use crate::runtime::Address;

/// Slots of a cluster, by its specification.
pub(super) const SLOTS: usize = mcp_protocol::resp::SLOTS as usize;
/// Masters that a table may name; Redis recommends to stay below 1,000 nodes.
pub(super) const MAX_NODES: usize = 1_000;
/// No node serves this slot.
const NOBODY: u16 = u16::MAX;

/// What listens at an address.
pub(super) trait Listens {
    /// The address.
    fn address(&self) -> &Address;
}

/// Which of the nodes `N` serves what; 32 KiB for the slots.
pub(super) struct SlotTable<N> {
    owners: Box<[u16]>,
    nodes: Vec<Option<N>>,
    covered: usize,
}

impl<N: Listens> SlotTable<N> {
    /// A table in which nobody serves anything.
    pub(super) fn empty() -> Self {
        SlotTable { owners: vec![NOBODY; SLOTS].into_boxed_slice(), nodes: Vec::new(), covered: 0 }
    }

    /// Who serves `slot`.
    pub(super) fn owner(&self, slot: u16) -> Option<&N> {
        let owner = self.owners.get(usize::from(slot)).copied()?;
        self.nodes.get(usize::from(owner))?.as_ref()
    }

    /// All nodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &N> {
        self.nodes.iter().flatten()
    }

    /// The node that listens there.
    pub(super) fn find(&self, address: &Address) -> Option<&N> {
        self.nodes().find(|node| node.address() == address)
    }

    /// Whether some slot has no node.
    pub(super) fn has_holes(&self) -> bool {
        self.covered < SLOTS
    }

    /// Gives one slot to the node at `to`, as a `MOVED` says; a node that is new comes from `open`. `None` where the slot
    /// does not exist or the table is full.
    pub(super) fn assign(&mut self, slot: u16, to: &Address, open: impl FnOnce() -> N) -> Option<&N> {
        let was = *self.owners.get(usize::from(slot))?;
        let place = self.place(to).or_else(|| self.free_place())?;
        self.nodes[usize::from(place)].get_or_insert_with(open);
        self.covered += usize::from(was == NOBODY);
        self.owners[usize::from(slot)] = place;
        self.nodes[usize::from(place)].as_ref()
    }

    /// Takes over what a node said of the whole cluster; nodes that are new come from `open`. Gives back those that are in
    /// it no more.
    pub(super) fn replace(&mut self, layout: &Layout, mut open: impl FnMut(&Address) -> N) -> Vec<N> {
        let stays = |node: &N| layout.masters.iter().any(|master| master.address == *node.address());
        let left = self.nodes.iter_mut().filter_map(|node| node.take_if(|node| !stays(node))).collect();
        self.owners.fill(NOBODY);
        for master in &layout.masters {
            let Some(place) = self.place(&master.address).or_else(|| self.free_place()) else { continue };
            self.nodes[usize::from(place)].get_or_insert_with(|| open(&master.address));
            for &(first, last) in &master.ranges {
                self.owners[usize::from(first)..=usize::from(last)].fill(place);
            }
        }
        self.covered = self.owners.iter().filter(|owner| **owner != NOBODY).count();
        left
    }

    fn place(&self, address: &Address) -> Option<u16> {
        let here = |node: &Option<N>| node.as_ref().is_some_and(|node| node.address() == address);
        self.nodes.iter().position(here).map(|place| place as u16)
    }

    fn free_place(&mut self) -> Option<u16> {
        if let Some(free) = self.nodes.iter().position(Option::is_none) {
            return Some(free as u16);
        }
        if self.nodes.len() == MAX_NODES {
            return None;
        }
        self.nodes.push(None);
        Some(self.nodes.len() as u16 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::layout::Shard;

    impl Listens for Address {
        fn address(&self) -> &Address {
            self
        }
    }

    fn at(port: u16) -> Address {
        Address { host: "10.0.0.1".into(), port }
    }

    fn layout(shards: &[(u16, &[(u16, u16)])]) -> Layout {
        let shard =
            |(port, ranges): &(u16, &[(u16, u16)])| Shard { address: at(*port), ranges: ranges.to_vec() };
        Layout { masters: shards.iter().map(shard).collect(), replicas: Vec::new() }
    }

    fn replace(table: &mut SlotTable<Address>, shards: &[(u16, &[(u16, u16)])]) -> Vec<Address> {
        table.replace(&layout(shards), Address::clone)
    }

    fn assign(table: &mut SlotTable<Address>, slot: u16, to: u16) -> bool {
        table.assign(slot, &at(to), || at(to)).is_some_and(|node| *node == at(to))
    }

    fn port(table: &SlotTable<Address>, slot: u16) -> Option<u16> {
        table.owner(slot).map(|address| address.port)
    }

    #[test]
    fn a_slot_belongs_to_the_node_whose_range_it_is_in() {
        let mut table = SlotTable::empty();
        assert!(table.has_holes() && port(&table, 0).is_none());
        assert!(replace(&mut table, &[(1, &[(0, 99), (200, 16_383)]), (2, &[(100, 199)])]).is_empty());
        assert!(!table.has_holes());
        for (slot, owner) in [(0, 1), (99, 1), (100, 2), (199, 2), (200, 1), (16_383, 1)] {
            assert_eq!(port(&table, slot), Some(owner), "{slot}");
        }
        assert_eq!(table.owner(16_384), None);
    }

    #[test]
    fn a_hole_is_nobodys_until_somebody_is_named() {
        let mut table = SlotTable::empty();
        replace(&mut table, &[(1, &[(0, 99)]), (2, &[(101, 16_383)])]);
        assert!(table.has_holes() && table.owner(100).is_none());
        assert!(assign(&mut table, 100, 2));
        assert!(!table.has_holes());
        assert_eq!(port(&table, 100), Some(2));
    }

    #[test]
    fn a_moved_slot_may_name_a_node_that_nobody_knew() {
        let mut table = SlotTable::empty();
        replace(&mut table, &[(1, &[(0, 16_383)])]);
        assert!(assign(&mut table, 7, 9));
        assert_eq!((port(&table, 6), port(&table, 7), port(&table, 8)), (Some(1), Some(9), Some(1)));
        assert!(!assign(&mut table, 16_384, 8) && table.find(&at(8)).is_none());
    }

    #[test]
    fn nodes_that_stay_are_the_same_and_those_that_left_are_given_back() {
        let mut table = SlotTable::empty();
        replace(&mut table, &[(1, &[(0, 8_000)]), (2, &[(8_001, 16_383)])]);
        let opened = std::cell::RefCell::new(Vec::new());
        let next = layout(&[(3, &[(8_001, 16_383)]), (1, &[(0, 8_000)])]);
        let left = table.replace(&next, |address| {
            opened.borrow_mut().push(address.port);
            address.clone()
        });
        assert_eq!((left, opened.take()), (vec![at(2)], vec![3]));
        assert_eq!((port(&table, 8_000), port(&table, 8_001)), (Some(1), Some(3)));
        assert_eq!(table.nodes().count(), 2);
    }

    #[test]
    fn a_table_has_an_end() {
        let mut table = SlotTable::empty();
        (0..MAX_NODES as u16).for_each(|port| assert!(assign(&mut table, port, port)));
        assert!(!assign(&mut table, 0, 9_999));
        assert_eq!(port(&table, 0), Some(0));
        assert_eq!(replace(&mut table, &[(1, &[(0, 1)])]).len(), MAX_NODES - 1);
        assert!(assign(&mut table, 0, 9_999));
    }
}
