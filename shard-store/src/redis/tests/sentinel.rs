//! The client with sentinels that the test writes down: who is asked, and what follows from the answers.

use std::cell::Cell;
use std::rc::Rc;

use super::{
    Act, Change, Client, Fake, Health, Noted, Settings, StoreError, Topology, address, bulk, echo, get, set,
    text, welcome,
};

/// The sentinels' ports; the first node's is 11, the second one's 12.
const SENTINELS: [u16; 2] = [1, 2];

/// What the sentinels say.
#[derive(Clone, Default)]
struct Said {
    master: Rc<Cell<u16>>,
    asked: Rc<Cell<u32>>,
    others: Rc<Cell<Option<u16>>>,
}

fn sentinel(said: Said) -> impl FnMut(usize, &[String]) -> Act {
    move |_, words| {
        welcome(words).unwrap_or_else(|| match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"] => {
                said.asked.set(said.asked.get() + 1);
                match said.master.get() {
                    0 => Act::say("_\r\n"),
                    port => Act::Say(format!("*2\r\n{}{}", bulk("node"), bulk(&port.to_string())).into()),
                }
            }
            ["SENTINEL", "SENTINELS", "mymaster"] => match said.others.get() {
                None => Act::say("*0\r\n"),
                Some(port) => {
                    let fields = ["name", "x", "ip", "node", "port", &port.to_string()].map(bulk).concat();
                    Act::Say(format!("*1\r\n*6\r\n{fields}").into())
                }
            },
            ["SUBSCRIBE", "+switch-master"] => {
                Act::say(">3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n")
            }
            _ => panic!("{words:?}"),
        })
    }
}

fn switch(to: u16) -> String {
    let message = format!("mymaster node 11 node {to}");
    format!(">3\r\n{}{}{}", bulk("message"), bulk("+switch-master"), bulk(&message))
}

fn start(master: u16, configured: &[u16]) -> (Fake, Rc<Client<Fake>>, Said) {
    let fake = Fake::new();
    let said = Said::default();
    said.master.set(master);
    SENTINELS.iter().for_each(|port| fake.serve(*port, sentinel(said.clone())));
    [11, 12].iter().for_each(|port| fake.serve(*port, echo));
    let topology = Topology::Sentinel {
        master: "mymaster".into(),
        sentinels: configured.iter().map(|port| address(*port)).collect(),
        auth: None,
    };
    let client = Client::new(fake.clone(), Settings::new(topology), Rc::new(Noted::default()));
    fake.flush_with(&client);
    (fake, client, said)
}

fn master(client: &Client<Fake>) -> u16 {
    client.stats().nodes[0].address.rsplit_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn commands_wait_for_the_first_answer_and_go_to_the_master() {
    let (fake, client, _) = start(11, &SENTINELS);
    assert_eq!(fake.run(get(&client, "k")), Ok(text("k")));
    assert_eq!((fake.writes(11), client.health()), (vec![vec!["GET k".to_owned()]], Health::Up));
}

#[test]
fn a_switch_takes_effect_at_once_and_reads_in_flight_are_sent_again() {
    let (fake, client, said) = start(11, &SENTINELS);
    fake.run(get(&client, "k")).unwrap();
    fake.pause(11, true);
    let mut read = Box::pin(get(&client, "k"));
    let mut write = Box::pin(set(&client, "k"));
    assert!(fake.poll(read.as_mut()).is_pending() && fake.poll(write.as_mut()).is_pending());
    fake.settle();
    said.master.set(12);
    fake.push(1, &switch(12));
    assert_eq!(fake.run(read), Ok(text("k")));
    assert_eq!(fake.run(write), Err(StoreError::Lost(Change::Unknown)));
    assert_eq!((master(&client), fake.writes(12)), (12, vec![vec!["GET k".to_owned()]]));
}

#[test]
fn a_switch_of_another_master_and_a_message_that_is_none_change_nothing() {
    let (fake, client, _) = start(11, &SENTINELS);
    fake.run(get(&client, "k")).unwrap();
    let other =
        format!(">3\r\n{}{}{}", bulk("message"), bulk("+switch-master"), bulk("other node 11 node 12"));
    fake.push(1, &other);
    fake.push(1, &switch(0));
    fake.push(1, "+what\r\n");
    fake.settle();
    assert_eq!(master(&client), 11);
}

#[test]
fn a_message_that_was_missed_is_made_up_for_by_asking() {
    let (fake, client, said) = start(11, &SENTINELS);
    fake.run(get(&client, "k")).unwrap();
    said.master.set(12);
    fake.advance(2_500);
    assert_eq!((master(&client), fake.run(get(&client, "k"))), (12, Ok(text("k"))));
}

#[test]
fn a_master_that_is_gone_has_the_sentinels_asked_often() {
    let (fake, client, said) = start(11, &SENTINELS);
    fake.run(get(&client, "k")).unwrap();
    fake.advance(1_000);
    fake.accept(11, false);
    fake.hang_up(11);
    fake.settle();
    assert_eq!(fake.run(get(&client, "k")), Err(StoreError::Unreachable));
    let before = said.asked.get();
    fake.advance(1_000);
    assert!((4..20).contains(&(said.asked.get() - before)), "{}", said.asked.get() - before);
    said.master.set(12);
    fake.advance(300);
    assert_eq!((master(&client), fake.run(get(&client, "k"))), (12, Ok(text("k"))));
}

#[test]
fn the_loss_of_a_sentinel_is_survived_also_by_learned_ones() {
    let (fake, client, said) = start(11, &[1]);
    said.others.set(Some(2));
    fake.run(get(&client, "k")).unwrap();
    // It is heard of the second one with the second question.
    fake.advance(2_500);
    fake.accept(1, false);
    fake.hang_up(1);
    fake.settle();
    said.master.set(12);
    fake.push(2, &switch(12));
    fake.settle();
    assert_eq!((master(&client), fake.run(get(&client, "k"))), (12, Ok(text("k"))));
}

#[test]
fn a_sentinel_that_falls_silent_is_left_for_another() {
    let (fake, client, said) = start(11, &SENTINELS);
    fake.run(get(&client, "k")).unwrap();
    fake.pause(1, true);
    said.master.set(12);
    fake.advance(3_000);
    assert_eq!(master(&client), 12);
}

#[test]
fn with_no_sentinel_commands_fail_at_once_until_one_is_there() {
    let (fake, client, said) = start(0, &SENTINELS);
    assert_eq!(fake.run(get(&client, "k")), Err(StoreError::Unreachable), "they do not know the name");
    assert_eq!(client.health(), Health::Down);
    SENTINELS.iter().for_each(|port| fake.accept(*port, false));
    SENTINELS.iter().for_each(|port| fake.hang_up(*port));
    fake.advance(1_000);
    assert_eq!(fake.run(get(&client, "k")), Err(StoreError::Unreachable));
    said.master.set(11);
    fake.accept(2, true);
    fake.advance(600);
    assert_eq!(fake.run(get(&client, "k")), Ok(text("k")));
}

#[test]
fn a_master_stays_when_all_sentinels_are_lost() {
    let (fake, client, _) = start(11, &SENTINELS);
    fake.run(get(&client, "k")).unwrap();
    SENTINELS.iter().for_each(|port| fake.accept(*port, false));
    SENTINELS.iter().for_each(|port| fake.hang_up(*port));
    fake.advance(10_000);
    assert_eq!(fake.run(get(&client, "k")), Ok(text("k")));
}

#[test]
fn a_master_that_became_a_replica_is_asked_what_it_is_before_it_is_used_again() {
    let (fake, client, said) = start(11, &SENTINELS);
    fake.run(get(&client, "k")).unwrap();
    fake.serve(11, |_, words| match words[0].as_str() {
        "ROLE" => Act::say("*2\r\n$5\r\nslave\r\n$4\r\nnode\r\n"),
        "SET" => Act::say("-READONLY You can't write against a read only replica.\r\n"),
        _ => echo(0, words),
    });
    let refused = fake.run(set(&client, "k"));
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    fake.advance(300);
    assert_eq!((client.health(), fake.run(get(&client, "k"))), (Health::Down, Err(StoreError::Unreachable)));
    said.master.set(12);
    fake.advance(300);
    assert_eq!((master(&client), fake.run(set(&client, "k")).is_ok()), (12, true));
}

#[test]
fn nothing_is_left_when_the_client_is_closed() {
    let (fake, client, _) = start(11, &SENTINELS);
    fake.run(get(&client, "k")).unwrap();
    client.close();
    fake.advance(5_000);
    assert_eq!(fake.tasks(), 0);
    let (fake, client, _) = start(11, &SENTINELS);
    fake.run(get(&client, "k")).unwrap();
    drop(client);
    fake.advance(5_000);
    assert_eq!(fake.tasks(), 0);
}
