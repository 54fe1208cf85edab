//! The client with a cluster that the test writes down: where commands go, and that those for one key keep their order
//! whatever moves.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;

use mcp_protocol::resp::{Reply, key_slot};

use super::{
    Act, Change, Client, Command, Effect, Fake, Health, Noted, ServerCode, Settings, StoreError, Topology,
    address, bulk, get, set, text, welcome,
};

/// Slots below this one begin with the first node, the others with the second.
const HALF: u16 = 8_192;

type Ranges = Vec<(u16, u16, u16)>;

/// A cluster: what the nodes say of it, and what they say to commands, which is the same for all of them.
#[derive(Clone, Default)]
struct World {
    /// First slot, last slot, port.
    table: Rc<RefCell<Ranges>>,
    /// An error instead of an answer: by port and key.
    refusals: Rc<RefCell<HashMap<(u16, String), String>>>,
    /// What the nodes carried out, in order: port and command.
    done: Rc<RefCell<Vec<(u16, String)>>>,
    /// Ports that were asked for the table.
    asked: Rc<RefCell<Vec<u16>>>,
}

impl World {
    fn table(&self, ranges: &[(u16, u16, u16)]) {
        *self.table.borrow_mut() = ranges.to_vec();
    }

    fn refuse(&self, port: u16, key: &str, error: &str) {
        self.refusals.borrow_mut().insert((port, key.to_owned()), error.to_owned());
    }

    fn oblige(&self) {
        self.refusals.borrow_mut().clear();
    }

    fn done(&self) -> Vec<(u16, String)> {
        self.done.take()
    }

    fn shards(&self) -> Act {
        let table = self.table.borrow();
        let shard = |(first, last, port): &(u16, u16, u16)| {
            format!(
                "%2\r\n+slots\r\n*2\r\n:{first}\r\n:{last}\r\n+nodes\r\n*1\r\n%4\r\n+port\r\n:{port}\r\n+endpoint\r\n+node\r\n\
                 +role\r\n+master\r\n+health\r\n+online\r\n"
            )
        };
        Act::Say(format!("*{}\r\n{}", table.len(), table.iter().map(shard).collect::<String>()).into())
    }

    fn node(&self, port: u16) -> impl FnMut(usize, &[String]) -> Act + use<> {
        let world = self.clone();
        let mut asking = false;
        move |_, words| {
            welcome(words).unwrap_or_else(|| match words[0].as_str() {
                "CLUSTER" => {
                    world.asked.borrow_mut().push(port);
                    world.shards()
                }
                "ASKING" => {
                    asking = true;
                    Act::say("+OK\r\n")
                }
                _ => {
                    let name = if std::mem::take(&mut asking) { "asked " } else { "" };
                    if let Some(error) = world.refusals.borrow().get(&(port, words[1].clone())) {
                        return Act::Say(format!("-{error}\r\n").into());
                    }
                    world.done.borrow_mut().push((port, format!("{name}{}", words.join(" "))));
                    if words[0] == "GET" { Act::Say(bulk(&words[1]).into()) } else { Act::say("+OK\r\n") }
                }
            })
        }
    }
}

/// Nodes at 1, 2 and 3; the slots are shared by the first two.
fn start() -> (Fake, Rc<Client<Fake>>, World) {
    let (fake, world) = (Fake::new(), World::default());
    world.table(&[(0, HALF - 1, 1), (HALF, 16_383, 2)]);
    (1..=3).for_each(|port| fake.serve(port, world.node(port)));
    let settings = Settings {
        tracked_prefix: b"k".to_vec(),
        failure_threshold: 1_000,
        ..Settings::new(Topology::Cluster(vec![address(1), address(2)]))
    };
    let client = Client::new(fake.clone(), settings, Rc::new(Noted::default()));
    fake.flush_with(&client);
    (fake, client, world)
}

/// As [`start`], and everything is connected.
fn started() -> (Fake, Rc<Client<Fake>>, World) {
    let (fake, client, world) = start();
    fake.advance(1_000);
    assert_eq!(client.health(), Health::Up);
    world.asked.take();
    (1..=3).for_each(|port| drop(fake.writes(port)));
    (fake, client, world)
}

/// A key of the first node, and one of the second.
fn keys() -> (String, String) {
    let key = |second: bool| {
        (0..).map(|n| format!("k{n}")).find(|key| (key_slot(key.as_bytes()) >= HALF) == second)
    };
    (key(false).unwrap(), key(true).unwrap())
}

fn moved(key: &str, to: u16) -> String {
    format!("MOVED {} node:{to}", key_slot(key.as_bytes()))
}

type Call<'a> = Pin<Box<dyn Future<Output = Result<Reply, StoreError>> + 'a>>;

/// Has commands begun, so that they leave with the next write.
fn begin<'a>(fake: &Fake, client: &'a Client<Fake>, commands: &'a [(&'a str, &'a str)]) -> Vec<Call<'a>> {
    commands
        .iter()
        .map(|(value, key)| {
            let mut call: Call<'a> = Box::pin(async move {
                let args: [&[u8]; 3] = [b"SET", key.as_bytes(), value.as_bytes()];
                client.call(&Command::write("set", key.as_bytes(), &args)).await
            });
            assert!(fake.poll(call.as_mut()).is_pending());
            call
        })
        .collect()
}

fn end(fake: &Fake, calls: Vec<Call<'_>>) {
    calls.into_iter().for_each(|call| assert_eq!(fake.run(call), Ok(Reply::Ok)));
}

#[test]
fn commands_wait_for_the_first_table_and_go_to_their_slots_nodes() {
    let (fake, client, world) = start();
    let (first, second) = keys();
    assert_eq!(fake.run(get(&client, &first)), Ok(text(&first)));
    assert_eq!(fake.run(get(&client, &second)), Ok(text(&second)));
    assert_eq!(world.done(), [(1, format!("GET {first}")), (2, format!("GET {second}"))]);
    let any = Command { name: "time", args: &[b"TIME", b"x"], key: None, effect: Effect::Read };
    assert_eq!(fake.run(client.call(&any)), Ok(Reply::Ok));
    assert_ne!(client.origin(first.as_bytes()), client.origin(second.as_bytes()));
}

#[test]
fn what_moved_is_sent_again_once_and_goes_there_from_then_on() {
    let (fake, client, world) = started();
    let (key, _) = keys();
    let before = client.origin(key.as_bytes());
    world.refuse(1, &key, &moved(&key, 3));
    assert_eq!(fake.run(get(&client, &key)), Ok(text(&key)));
    assert_eq!((world.done().len(), fake.writes(1).len()), (1, 1));
    assert_eq!(fake.run(get(&client, &key)), Ok(text(&key)));
    assert_eq!((world.done(), fake.writes(1)), (vec![(3, format!("GET {key}"))], Vec::<Vec<String>>::new()));
    assert_ne!(client.origin(key.as_bytes()), before, "copies are believed no more");
    let moved: Vec<_> = client.stats().nodes.iter().map(|node| node.redirects.clone()).collect();
    assert_eq!(moved[0], [("moved", 1)]);
    fake.advance(200);
    assert_eq!(world.asked.borrow().len(), 1, "the whole table is asked for, once");
}

#[test]
fn commands_for_a_key_keep_their_order_when_its_slot_moves_under_them() {
    let (fake, client, world) = started();
    let (key, other) = keys();
    world.refuse(1, &key, &moved(&key, 3));
    // The old node does not read yet; so the first three are in flight when the redirect of the first one comes.
    fake.pause(1, true);
    let early = [("1", &*key), ("2", &key), ("3", &key)];
    let mut calls = begin(&fake, &client, &early);
    fake.settle();
    fake.pause(1, false);
    fake.pause(3, true);
    fake.settle();
    let late = [("4", &*key), ("5", &key), ("6", &other)];
    calls.extend(begin(&fake, &client, &late));
    fake.settle();
    fake.pause(3, false);
    end(&fake, calls);
    let order: Vec<_> =
        world.done().into_iter().filter(|(port, _)| *port == 3).map(|(_, done)| done).collect();
    assert_eq!(order, ["1", "2", "3", "4", "5"].map(|value| format!("SET {key} {value}")));
}

#[test]
fn what_comes_between_two_redirects_is_held_until_the_old_node_has_answered_all() {
    let (fake, client, world) = started();
    let (key, _) = keys();
    // Each answer of the old node comes in a read of its own.
    fake.serve(1, |_, words| welcome(words).unwrap_or(Act::Nothing));
    let early = [("1", &*key), ("2", &key)];
    let mut calls = begin(&fake, &client, &early);
    fake.settle();
    fake.push(1, &format!("-{}\r\n", moved(&key, 3)));
    fake.settle();
    let late = [("3", &*key)];
    calls.extend(begin(&fake, &client, &late));
    fake.settle();
    assert_eq!(world.done(), [(3, format!("SET {key} 1"))], "the third one is held");
    fake.push(1, &format!("-{}\r\n", moved(&key, 3)));
    end(&fake, calls);
    assert_eq!(world.done(), [(3, format!("SET {key} 2")), (3, format!("SET {key} 3"))]);
}

#[test]
fn what_is_held_goes_on_when_the_old_node_breaks_or_falls_silent() {
    for breaks in [true, false] {
        let (fake, client, world) = started();
        let (key, _) = keys();
        world.table(&[(0, HALF - 1, 3), (HALF, 16_383, 2)]);
        fake.serve(1, |_, words| welcome(words).unwrap_or(Act::Nothing));
        let early = [("1", &*key), ("2", &key)];
        let mut early = begin(&fake, &client, &early).into_iter();
        fake.settle();
        fake.push(1, &format!("-{}\r\n", moved(&key, 3)));
        fake.advance(250);
        let late = [("3", &*key)];
        let late = begin(&fake, &client, &late);
        fake.settle();
        assert_eq!(world.done(), [(3, format!("SET {key} 1"))]);
        if breaks {
            fake.hang_up(1);
        }
        fake.advance(300);
        end(&fake, late);
        assert_eq!(fake.run(early.next().unwrap()), Ok(Reply::Ok));
        let unknown =
            if breaks { StoreError::Lost(Change::Unknown) } else { StoreError::Timeout(Change::Unknown) };
        assert_eq!(fake.run(early.next().unwrap()), Err(unknown));
        assert_eq!(world.done(), [(3, format!("SET {key} 3"))]);
    }
}

#[test]
fn a_new_table_does_not_let_later_commands_overtake_earlier_ones() {
    let (fake, client, world) = started();
    let (key, other) = keys();
    fake.serve(1, |_, words| welcome(words).unwrap_or(Act::Nothing));
    let early = [("1", &*key)];
    let mut calls = begin(&fake, &client, &early);
    fake.settle();
    world.table(&[(0, HALF - 1, 3), (HALF, 16_383, 2)]);
    world.refuse(2, &other, &moved(&other, 2));
    // Somebody else's redirect has the table asked for.
    assert!(fake.run(get(&client, &other)).is_err());
    fake.advance(100);
    let late = [("2", &*key)];
    calls.extend(begin(&fake, &client, &late));
    fake.settle();
    assert_eq!(world.done(), []);
    fake.push(1, &format!("-{}\r\n", moved(&key, 3)));
    end(&fake, calls);
    assert_eq!(world.done(), [(3, format!("SET {key} 1")), (3, format!("SET {key} 2"))]);
}

#[test]
fn ask_concerns_one_command_and_leaves_the_table_alone() {
    let (fake, client, world) = started();
    let (key, _) = keys();
    world.refuse(1, &key, &format!("ASK {} node:3", key_slot(key.as_bytes())));
    assert_eq!(fake.run(set(&client, &key)), Ok(Reply::Ok));
    assert_eq!(fake.writes(3).concat(), ["ASKING".to_owned(), format!("SET {key} v")]);
    world.oblige();
    assert_eq!(fake.run(get(&client, &key)), Ok(text(&key)));
    assert_eq!(world.done(), [(3, format!("asked SET {key} v")), (1, format!("GET {key}"))]);
    assert!(client.stats().nodes.iter().any(|node| node.address.ends_with(":3")));
    fake.advance(11_000);
    assert!(!client.stats().nodes.iter().any(|node| node.address.ends_with(":3")), "it is needed no more");
}

#[test]
fn try_again_is_tried_again_within_the_commands_time() {
    let (fake, client, world) = started();
    let (key, _) = keys();
    world.refuse(1, &key, "TRYAGAIN Multiple keys request during rehashing of slot");
    let mut call = Box::pin(set(&client, &key));
    assert!(fake.poll(call.as_mut()).is_pending());
    fake.advance(200);
    assert!(fake.poll(call.as_mut()).is_pending());
    let tries = fake.writes(1).len();
    assert!((3..=20).contains(&tries), "{tries}");
    world.oblige();
    fake.advance(100);
    assert_eq!(fake.run(call), Ok(Reply::Ok));

    world.refuse(1, &key, "TRYAGAIN Multiple keys request during rehashing of slot");
    let mut call = Box::pin(set(&client, &key));
    assert!(fake.poll(call.as_mut()).is_pending());
    fake.advance(600);
    let ended = fake.run(call);
    assert!(matches!(ended, Err(StoreError::Refused { code: ServerCode::TryAgain, .. })), "{ended:?}");
}

#[test]
fn redirects_that_lead_in_a_circle_end() {
    let (fake, client, world) = started();
    let (key, _) = keys();
    world.refuse(1, &key, &moved(&key, 2));
    world.refuse(2, &key, &moved(&key, 1));
    let ended = fake.run(get(&client, &key));
    assert!(matches!(ended, Err(StoreError::Refused { code: ServerCode::Redirect, .. })), "{ended:?}");
    assert_eq!(fake.writes(1).len() + fake.writes(2).len(), 6 + world.asked.borrow().len());
}

#[test]
fn a_hole_is_refused_at_once_and_asked_about() {
    let (fake, client, world) = started();
    let (key, other) = keys();
    world.table(&[(1, 1, 1), (HALF, 16_383, 2)]);
    world.refuse(1, &key, "CLUSTERDOWN Hash slot not served");
    let refused = fake.run(get(&client, &key));
    assert!(matches!(refused, Err(StoreError::Refused { code: ServerCode::ClusterDown, .. })), "{refused:?}");
    fake.advance(200);
    fake.writes(1);
    let refused = fake.run(get(&client, &key));
    assert!(matches!(refused, Err(StoreError::Refused { code: ServerCode::ClusterDown, .. })), "{refused:?}");
    assert!(!fake.writes(1).concat().iter().any(|command| command.starts_with("GET")), "nobody was asked");
    assert_eq!((fake.run(get(&client, &other)), client.health()), (Ok(text(&other)), Health::Impaired));
    world.oblige();
    world.table(&[(0, HALF - 1, 3), (HALF, 16_383, 2)]);
    fake.advance(300);
    assert_eq!((fake.run(get(&client, &key)), client.health()), (Ok(text(&key)), Health::Up));
}

#[test]
fn a_failover_is_seen_soon_after_it_is_done_while_other_nodes_serve() {
    let (fake, client, world) = started();
    let (key, other) = keys();
    fake.accept(1, false);
    fake.hang_up(1);
    fake.settle();
    for _ in 0..10 {
        assert_eq!(fake.run(get(&client, &key)), Err(StoreError::Unreachable));
        assert_eq!(fake.run(get(&client, &other)), Ok(text(&other)));
        fake.advance(100);
    }
    assert_eq!(client.health(), Health::Impaired);
    assert!((3..20).contains(&world.asked.borrow().len()), "{:?}", world.asked);
    world.table(&[(0, HALF - 1, 3), (HALF, 16_383, 2)]);
    fake.advance(300);
    assert_eq!((fake.run(get(&client, &key)), client.health()), (Ok(text(&key)), Health::Up));
    fake.advance(1_000);
    assert_eq!(client.stats().nodes.iter().filter(|node| node.address.ends_with(":1")).count(), 0);
}

#[test]
fn the_table_comes_from_another_node_while_one_is_silent() {
    let (fake, client, world) = started();
    let (key, other) = keys();
    fake.pause(1, true);
    let mut call = Box::pin(get(&client, &key));
    assert!(fake.poll(call.as_mut()).is_pending());
    fake.advance(600);
    assert_eq!(fake.run(call), Err(StoreError::Timeout(Change::None)));
    assert_eq!(fake.run(get(&client, &key)), Err(StoreError::Unreachable), "at once");
    assert_eq!(fake.run(get(&client, &other)), Ok(text(&other)));
    world.table(&[(0, HALF - 1, 3), (HALF, 16_383, 2)]);
    fake.advance(300);
    assert_eq!(fake.run(get(&client, &key)), Ok(text(&key)));
    assert!(!world.asked.borrow().contains(&1));
}

#[test]
fn a_node_that_comes_back_serves_again_soon() {
    let (fake, client, _) = started();
    let (key, _) = keys();
    fake.accept(1, false);
    fake.hang_up(1);
    fake.advance(5_000);
    assert_eq!(fake.run(get(&client, &key)), Err(StoreError::Unreachable));
    fake.accept(1, true);
    fake.advance(300);
    assert_eq!(fake.run(get(&client, &key)), Ok(text(&key)));
}

#[test]
fn with_no_node_commands_fail_at_once_until_one_is_there() {
    let (fake, client, _) = start();
    let (key, _) = keys();
    (1..=3).for_each(|port| fake.accept(port, false));
    assert_eq!(fake.run(get(&client, &key)), Err(StoreError::Unreachable));
    assert_eq!(client.health(), Health::Down);
    fake.accept(2, true);
    fake.accept(1, true);
    fake.advance(300);
    assert_eq!(fake.run(get(&client, &key)), Ok(text(&key)));
}

#[test]
fn a_silent_seed_is_passed_over_before_commands_run_out_of_time() {
    let (fake, client, world) = start();
    fake.serve(1, |_, _| Act::Nothing);
    let (_, key) = keys();
    let mut call = Box::pin(get(&client, &key));
    assert!(fake.poll(call.as_mut()).is_pending());
    fake.advance(600);
    assert_eq!(fake.run(call), Err(StoreError::Timeout(Change::None)), "its time was the seed's");
    assert_eq!(fake.run(get(&client, &key)), Ok(text(&key)));
    assert_eq!(world.asked.borrow()[0], 2);
}

#[test]
fn nothing_is_left_when_the_client_is_closed() {
    let (fake, client, world) = started();
    let (key, _) = keys();
    world.refuse(1, &key, &moved(&key, 3));
    fake.run(get(&client, &key)).unwrap();
    client.close();
    fake.advance(12_000);
    assert_eq!(fake.tasks(), 0);
    let (fake, client, _) = started();
    drop(client);
    fake.advance(12_000);
    assert_eq!(fake.tasks(), 0);
}
