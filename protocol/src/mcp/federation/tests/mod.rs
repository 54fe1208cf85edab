//! Tests of the whole way of a message, by example; `generated` does the same by thousands.

mod generated;

use std::borrow::Cow;

use serde_json::{Value, json};

use super::*;
use crate::jsonrpc::{Payload, Scan, ScanLimits, scan};

fn all() -> Federation {
    Federation::new(["files", "my_git", "time"])
}

fn scanned(body: &str) -> Scan {
    match scan(body.as_bytes(), &ScanLimits::default()) {
        Ok(Payload::Single(scan)) => scan,
        other => panic!("{body}: {other:?}"),
    }
}

fn request(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
}

fn route(body: &str) -> Result<Route<'_>, Unroutable> {
    all().route(body.as_bytes(), &scanned(body))
}

/// Where a request goes, and what its params become.
fn routed(method: &str, params: &str) -> (usize, String) {
    let body = request(method, params);
    let Ok(Route::One { server, body, asked }) = route(&body) else { panic!("{body}: {:?}", route(&body)) };
    assert_eq!(asked, Asked::of(method));
    let own = String::from_utf8(body.into_owned()).unwrap();
    let start = own.find(r#""params":"#).unwrap() + 9;
    (server, own[start..own.len() - 1].to_owned())
}

fn outward(server: usize, asked: Asked, message: &str) -> String {
    String::from_utf8(all().outward(server, asked, message.as_bytes()).into_owned()).unwrap()
}

#[test]
fn requests_find_their_server_and_lose_its_name() {
    for (method, params, server, own) in [
        ("tools/call", r#"{"name":"files__read","arguments":{"name":"files__x"}}"#, 0, {
            r#"{"name":"read","arguments":{"name":"files__x"}}"#
        }),
        ("tools/call", r#"{"a":[1.0e2],"name" : "my_git____x" }"#, 1, r#"{"a":[1.0e2],"name" : "__x" }"#),
        ("prompts/get", r#"{"name":"time__na\u006de\/"}"#, 2, r#"{"name":"na\u006de\/"}"#),
        ("prompts/get", r#"{"name":"tim\u0065__a\"b"}"#, 2, r#"{"name":"a\"b"}"#),
        ("resources/read", r#"{"uri":"mcp+my.git:git:\/\/x"}"#, 1, r#"{"uri":"git:\/\/x"}"#),
        ("resources/subscribe", r#"{"uri":"MCP+time:x:"}"#, 2, r#"{"uri":"x:"}"#),
        ("resources/unsubscribe", r#"{"uri":"mcp+files:mcp+time:x:"}"#, 0, r#"{"uri":"mcp+time:x:"}"#),
        ("tasks/get", r#"{"taskId":"files__1-2"}"#, 0, r#"{"taskId":"1-2"}"#),
        ("tasks/update", r#"{"taskId":"files__7","inputResponses":{}}"#, 0, {
            r#"{"taskId":"7","inputResponses":{}}"#
        }),
        ("tasks/result", r#"{"taskId":"time__"}"#, 2, r#"{"taskId":""}"#),
        (
            "completion/complete",
            r#"{"ref":{"type":"ref/prompt","name":"files__p"},"argument":{"name":"a"}}"#,
            0,
            { r#"{"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a"}}"# },
        ),
        ("completion/complete", r#"{"ref":{"type":"ref/resource","uri":"mcp+time:t://{z}"}}"#, 2, {
            r#"{"ref":{"type":"ref/resource","uri":"t://{z}"}}"#
        }),
    ] {
        assert_eq!(routed(method, params), (server, own.to_owned()), "{method} {params}");
    }
}

#[test]
fn requests_for_nobody_are_told_why() {
    for (method, params, code, told) in [
        ("tools/call", r#"{"name":"read"}"#, -32602, "Unknown tool: read (names have the form server__name)"),
        (
            "prompts/get",
            r#"{"name":"x__y"}"#,
            -32602,
            "Unknown prompt: x__y (names have the form server__name)",
        ),
        ("tools/call", "{}", -32602, "Invalid params: params.name must be one string"),
        ("tools/call", r#"{"name":7}"#, -32602, "Invalid params: params.name must be one string"),
        ("resources/read", r#"{"uri":"file:///x"}"#, -32602, {
            "Unknown resource: file:///x (URIs have the form mcp+server:uri)"
        }),
        ("completion/complete", r#"{"ref":{"name":"files__a"},"ref":{"name":"time__a"}}"#, -32602, {
            "Invalid params: params.ref name several servers"
        }),
        ("tools/list", r#"{"cursor":"abc"}"#, -32602, "Invalid cursor"),
        ("x/y", "{}", -32601, "Method not found: x/y"),
        ("subscriptions/listen", r#"{"notifications":{"resourceSubscriptions":["file:///x"]}}"#, -32602, {
            "Unknown resource: file:///x (URIs have the form mcp+server:uri)"
        }),
    ] {
        let body = request(method, params);
        let error = route(&body).unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), (code, told), "{method} {params}");
    }
    let long = format!(r#"{{"name":"{}"}}"#, "é".repeat(5000));
    assert!(route(&request("tools/call", &long)).unwrap_err().to_string().len() < 400);
}

#[test]
fn what_is_for_all_goes_to_all() {
    let body = |method: &str| request(method, "{}");
    assert_eq!(route(&body("ping")), Ok(Route::Ping));
    assert_eq!(route(&body("initialize")), Ok(Route::Hello));
    assert_eq!(route(&body("server/discover")), Ok(Route::Hello));
    assert_eq!(route(&body("logging/setLevel")), Ok(Route::Each));
    let list = body("tools/list");
    let each = (0..3).map(|server| (server, Cow::Borrowed(list.as_bytes()))).collect();
    assert_eq!(route(&list), Ok(Route::List(List::Tools, each)));
    for method in ["initialized", "roots/list_changed", "cancelled", "x"] {
        let notification = format!(r#"{{"jsonrpc":"2.0","method":"notifications/{method}","params":{{}}}}"#);
        assert_eq!(route(&notification), Ok(Route::Notify));
    }
}

#[test]
fn a_servers_request_and_its_response_keep_their_ids() {
    for id in ["7", "-1", r#""a""#, r#""a\"\\\u0041/é""#, r#""""#, "9007199254740993"] {
        let asked = format!(
            r#"{{"jsonrpc":"2.0","id": {id} ,"method":"sampling/createMessage","params":{{"_meta":{{"progressToken":{id}}}}}}}"#
        );
        let seen = outward(1, Asked::Other, &asked);
        let value: Value = serde_json::from_str(&seen).unwrap();
        let marked = format!("my_git/{id}");
        assert_eq!(
            (&value["id"], &value["params"]["_meta"]["progressToken"]),
            (&json!(marked), &json!(marked))
        );
        let marked = value["id"].to_string();
        for marked in [marked.clone(), marked.replace('/', r"\/")] {
            let response = format!(r#"{{"result":{{"x":1.0}},"id":{marked}, "jsonrpc":"2.0"}}"#);
            let own = format!(r#"{{"result":{{"x":1.0}},"id":{id}, "jsonrpc":"2.0"}}"#);
            let body = Cow::Owned(own.into_bytes());
            assert_eq!(route(&response), Ok(Route::One { server: 1, body, asked: Asked::Other }));
            let progress = |token: &str| {
                format!(
                    r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token}}}}}"#
                )
            };
            let body = Cow::Owned(progress(id).into_bytes());
            assert_eq!(route(&progress(&marked)), Ok(Route::One { server: 1, body, asked: Asked::Other }));
            assert_eq!(route(&progress("5")), Ok(Route::Notify));
        }
        let cancelled = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
        );
        let seen = outward(1, Asked::Other, &cancelled);
        assert!(seen.contains(&format!(r#""requestId":{}}}"#, json!(format!("my_git/{id}")))), "{seen}");
        assert_eq!(outward(1, Asked::Listen, &cancelled), cancelled);
    }
}

#[test]
fn nothing_but_an_id_can_come_in_an_ids_place() {
    for id in
        ["my_git/{}", "my_git/1,\"x\":2", "my_git/", "my_git/ 1", "my_git/null", "x/1", "1", "my_git/\"a"]
    {
        let response = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, json!(id));
        assert_eq!(route(&response), Err(Unroutable::Response), "{id}");
    }
    assert_eq!(route(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), Err(Unroutable::Response));
}

#[test]
fn a_task_is_told_of_by_the_clients_name_and_the_servers() {
    for (asked, own) in [
        (Asked::Tool, r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"task","taskId":"t"}}"#),
        (Asked::Tool, r#"{"jsonrpc":"2.0","id":1,"result":{"task":{"taskId":"t"}}}"#),
        (Asked::Task, r#"{"jsonrpc":"2.0","id":1,"result":{"taskId":"t","result":{"content":[]}}}"#),
    ] {
        assert_eq!(outward(0, asked, own), own.replace(r#":"t""#, r#":"files__t""#));
    }
    let related = |task: &str, rest: &str| {
        format!(
            r#"{{"jsonrpc":"2.0",{rest}"_meta":{{"io.modelcontextprotocol/related-task":{{"taskId":"{task}"}}}}}}}}"#
        )
    };
    let asked = related("t", r#""id":3,"method":"elicitation/create","params":{"#);
    let seen = related("files__t", r#""id":"files/3","method":"elicitation/create","params":{"#);
    assert_eq!(outward(0, Asked::Other, &asked), seen);
    let said = related("files__t", r#""id":"files/3","result":{"#);
    let own = related("t", r#""id":3,"result":{"#);
    let body = Cow::Owned(own.into_bytes());
    assert_eq!(route(&said), Ok(Route::One { server: 0, body, asked: Asked::Other }));
    let progress = related("t", r#""method":"notifications/message","params":{"#);
    assert_eq!(outward(0, Asked::Other, &progress), progress.replace(r#":"t""#, r#":"files__t""#));
}

#[test]
fn an_events_id_leads_back_to_its_server() {
    let all = all();
    for asked in
        [Asked::Tool, Asked::Prompt, Asked::Resource, Asked::Task, Asked::Listen, Asked::Stream, Asked::Other]
    {
        for own in [&b"1"[..], b"a/b/c", b"\xff"] {
            let id = all.event_id(1, asked, own);
            assert_eq!(all.split_event_id(&id), Some((1, asked, own)));
        }
    }
    assert_eq!(all.event_id(2, Asked::Tool, b"7"), b"time/t/7");
    assert_eq!(all.event_id(2, Asked::Tool, b""), b"");
    for id in [&b""[..], b"7", b"time", b"time/", b"time/t", b"time/x/7", b"other/t/7", b"\xff/t/7"] {
        assert_eq!(all.split_event_id(id), None);
    }
}

#[test]
fn a_batch_is_many_messages() {
    let batch = r#" [ {"jsonrpc":"2.0","id":1,"method":"roots/list"},
        {"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:"}} ,
        {"jsonrpc":"2.0","id":1,"result":{"contents":[{"uri":"b:"}]}}] "#;
    let seen = outward(2, Asked::Resource, batch);
    let expected = batch
        .replacen(r#""id":1"#, r#""id":"time/1""#, 1)
        .replace("\"a:", "\"mcp+time:a:")
        .replace("\"b:", "\"mcp+time:b:");
    assert_eq!(seen, expected);
}

#[test]
fn what_is_no_message_stays() {
    for text in ["", "<html>", "{", "[]", r#"{"id":1}"#, r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#] {
        assert_eq!(outward(0, Asked::Tool, text), text);
    }
}

fn page(server: usize, list: List, result: &str) -> Option<Page> {
    let response = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
    Page::read(&all(), server, list, response.as_bytes())
}

fn written(list: List, pages: &[(usize, Page)], missing: &[usize], modern: bool) -> Value {
    serde_json::from_slice(&write_list(&all(), list, b"\"i\"", pages, missing, modern)).unwrap()
}

#[test]
fn pages_of_all_servers_make_one() {
    let files = page(
        0,
        List::Tools,
        r#"{"nextCursor":"2","tools":[ {"name":"a","x":1.50} ,{"name":"b"}],
        "ttlMs":300,"cacheScope":"public"}"#,
    );
    let git = page(1, List::Tools, r#"{"tools":[ ],"ttlMs":1e3,"cacheScope":"public"}"#);
    let time = page(
        2,
        List::Tools,
        r#"{"tools":[{"inputSchema":{"name":"n"},"name":"c"}],"ttlMs":500,"cacheScope":"private"}"#,
    );
    let pages = [(0, files.unwrap()), (1, git.unwrap()), (2, time.unwrap())];
    let whole = write_list(&all(), List::Tools, b"\"i\"", &pages, &[], true);
    let text = String::from_utf8(whole.clone()).unwrap();
    assert!(text.contains(r#"[ {"name":"files__a","x":1.50} ,{"name":"files__b"},{"inputSchema""#), "{text}");
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(whole["id"], "i");
    assert_eq!(whole["result"]["ttlMs"], 300);
    assert_eq!(whole["result"]["cacheScope"], "private");
    assert_eq!(whole["result"]["resultType"], "complete");
    assert_eq!(whole["result"].get("_meta"), None);
    let next = whole["result"]["nextCursor"].as_str().unwrap();
    let body = request("tools/list", &format!(r#"{{"cursor":"{next}","x":[]}}"#));
    let own = request("tools/list", r#"{"cursor":"2","x":[]}"#);
    let asked = vec![(0, Cow::Borrowed(own.as_bytes()))];
    assert_eq!(route(&body), Ok(Route::List(List::Tools, asked)));
    assert_eq!(route(&body.replace("tools/list", "prompts/list")), Err(Unroutable::Cursor));
    // Nobody is to keep what is not whole.
    let part = written(List::Tools, &pages[..2], &[2], true);
    assert_eq!((&part["result"]["ttlMs"], &part["result"]["cacheScope"]), (&json!(0), &json!("public")));
    assert_eq!(part["result"]["_meta"], json!({"io.mcp-bridge/missing-servers": ["time"]}));
    let legacy = written(List::Tools, &pages[1..], &[], false);
    assert_eq!(legacy["result"], json!({"tools": [{"inputSchema": {"name": "n"}, "name": "time__c"}]}));
}

#[test]
fn every_list_has_its_own_names() {
    for (list, own, seen) in [
        (List::Prompts, r#"{"prompts":[{"name":"p"}]}"#, json!({"prompts": [{"name": "my_git__p"}]})),
        (List::Resources, r#"{"resources":[{"name":"r","uri":"a:b"}]}"#, {
            json!({"resources": [{"name": "r", "uri": "mcp+my.git:a:b"}]})
        }),
        (List::Templates, r#"{"resourceTemplates":[{"uriTemplate":"a:{b}"}]}"#, {
            json!({"resourceTemplates": [{"uriTemplate": "mcp+my.git:a:{b}"}]})
        }),
        (List::Tasks, r#"{"tasks":[{"taskId":"t"}]}"#, json!({"tasks": [{"taskId": "my_git__t"}]})),
    ] {
        assert_eq!(written(list, &[(1, page(1, list, own).unwrap())], &[], false)["result"], seen);
    }
}

#[test]
fn what_is_no_page_is_none_and_a_server_without_the_method_lists_nothing() {
    for result in ["{}", "[]", r#"{"tools":{}}"#, r#"{"tools":[],"tools":[]}"#, r#"{"prompts":[]}"#] {
        assert_eq!(page(0, List::Tools, result), None, "{result}");
    }
    let error = |code: i64| format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":""}}}}"#);
    assert_eq!(Page::read(&all(), 0, List::Tools, error(-32603).as_bytes()), None);
    assert_eq!(Page::read(&all(), 0, List::Tools, b"<html>"), None);
    let none = Page::read(&all(), 0, List::Prompts, error(-32601).as_bytes()).unwrap();
    let some = page(1, List::Prompts, r#"{"prompts":[],"ttlMs":7,"cacheScope":"public"}"#).unwrap();
    let both = written(List::Prompts, &[(0, none), (1, some)], &[], true);
    assert_eq!((&both["result"]["ttlMs"], &both["result"]["cacheScope"]), (&json!(7), &json!("public")));
}

#[test]
fn hints_are_read_and_a_request_for_more_than_a_page_is_told() {
    for (result, ttl_ms, public) in [
        (r#"{"tools":[{"ttlMs":9}],"ttlMs":300,"cacheScope":"public"}"#, 300, true),
        (r#"{"ttlMs":1e3,"cacheScope":"private"}"#, 1000, false),
        (r#"{"ttlMs":-5,"cacheScope":"Public"}"#, 0, false),
        (r#"{"ttlMs":"300"}"#, 0, false),
        ("{}", 0, false),
    ] {
        let response = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
        assert_eq!(Freshness::of(response.as_bytes()), Freshness { ttl_ms, public }, "{result}");
    }
    assert_eq!(Freshness::of(b"{"), Freshness::default());
    for (params, only) in [
        ("{}", true),
        (r#"{"_meta":{"x":1},"\u0063ursor":"c"}"#, true),
        (r#"{"cursor":"c","filter":1}"#, false),
    ] {
        let body = request("tools/list", params);
        assert_eq!(asks_only_for_page(body.as_bytes(), scanned(&body).params), only, "{params}");
    }
    assert!(asks_only_for_page(b"{}", None));
}

fn hello(result: &Value) -> Hello {
    Hello::read(json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string().as_bytes()).unwrap()
}

const INFO: ServerInfo<'static> = ServerInfo { name: "gateway", version: "1" };

#[test]
fn greetings_are_the_union_of_all() {
    let one = hello(&json!({"protocolVersion": "2025-06-18", "instructions": "Read.",
        "capabilities": {"tools": {"listChanged": false}, "experimental": {"a": {"b": 1}}}, "serverInfo": {}}));
    let other = hello(&json!({"protocolVersion": "2025-11-25", "instructions": "Write.",
        "capabilities": {"tools": {"listChanged": true}, "logging": {}, "experimental": {"a": {"b": 2, "c": 3}}}}));
    let hellos = [(0, one), (1, other)];
    let (response, revision) = write_initialize(&all(), b"5", &hellos, &[2], INFO).unwrap();
    assert_eq!(revision, crate::mcp::Revision::V2025_11_25);
    let response: Value = serde_json::from_slice(&response).unwrap();
    let expected = json!({"protocolVersion": "2025-11-25", "serverInfo": {"name": "gateway", "version": "1"},
        "capabilities": {
            "tools": {"listChanged": true}, "logging": {}, "experimental": {"a": {"b": 1, "c": 3}}
        },
        "instructions": "# files\n\nRead.\n\n# my_git\n\nWrite.",
        "_meta": {"io.mcp-bridge/missing-servers": ["time"]}});
    assert_eq!(response, json!({"jsonrpc": "2.0", "id": 5, "result": expected}));
    assert!(write_initialize(&all(), b"5", &[], &[0, 1, 2], INFO).is_none());
}

#[test]
fn discovery_is_the_union_of_all() {
    let one =
        hello(&json!({"supportedVersions": ["2026-07-28", "9999-01-01"], "capabilities": {"prompts": {}},
        "ttlMs": 60, "cacheScope": "public"}));
    let other = hello(&json!({"supportedVersions": ["2026-07-28", "2025-11-25"], "capabilities": {},
        "ttlMs": 50, "cacheScope": "public"}));
    let response = write_discover(&all(), b"\"d\"", &[(0, one), (2, other)], &[], INFO);
    let response: Value = serde_json::from_slice(&response).unwrap();
    let expected = json!({"resultType": "complete", "supportedVersions": ["2025-11-25", "2026-07-28"],
        "capabilities": {"prompts": {}}, "ttlMs": 50, "cacheScope": "public",
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "gateway", "version": "1"}}});
    assert_eq!(response, json!({"jsonrpc": "2.0", "id": "d", "result": expected}));
    for none in
        ["", "{}", r#"{"result":{"capabilities":{}}}"#, r#"{"result":{"protocolVersion":"2025-11-25"}}"#]
    {
        assert!(Hello::read(none.as_bytes()).is_none(), "{none}");
    }
}

#[test]
fn each_server_is_asked_for_its_own_resources() {
    let body = |uris: &str, flags: &str| {
        request(
            "subscriptions/listen",
            &format!(r#"{{"notifications":{{"resourceSubscriptions":[{uris}]{flags}}}}}"#),
        )
    };
    let uris = r#""mcp+files:a:","mcp+time:b:\"", "mcp+files:c:""#;
    let some = body(uris, "");
    let of = |server, uris: &str, flags: &str| (server, Cow::Owned(body(uris, flags).into_bytes()));
    assert_eq!(route(&some), Ok(Route::Listen(vec![of(0, r#""a:","c:""#, ""), of(2, r#""b:\"""#, "")])));
    let flag = r#","toolsListChanged":true"#;
    let all_of = body(uris, flag);
    assert_eq!(
        route(&all_of),
        Ok(Route::Listen(vec![of(0, r#""a:","c:""#, flag), of(1, "", flag), of(2, r#""b:\"""#, flag)]))
    );
    let nothing = request("subscriptions/listen", r#"{"notifications":{}}"#);
    assert!(matches!(route(&nothing), Ok(Route::Listen(asked)) if asked.len() == 3));
}

#[test]
fn acknowledgments_of_all_make_one() {
    let said = |notifications: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"notifications":{notifications}}}}}"#
        )
    };
    let all = all();
    let mut together = Acknowledged::default();
    assert!(together.add(
        &all,
        0,
        said(r#"{"toolsListChanged":false,"resourceSubscriptions":["a:"]}"#).as_bytes()
    ));
    assert!(together.add(
        &all,
        1,
        said(r#"{"toolsListChanged":true,"resourceSubscriptions":["b:"]}"#).as_bytes()
    ));
    assert!(!together.add(&all, 1, br#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#));
    assert!(!together.add(&all, 1, b"no message"));
    let message: Value = serde_json::from_slice(&write_acknowledged(&all, b"9", together, &[2])).unwrap();
    let expected = json!({
        "_meta": {"io.modelcontextprotocol/subscriptionId": 9, "io.mcp-bridge/missing-servers": ["time"]},
        "notifications": {"toolsListChanged": true, "resourceSubscriptions": ["mcp+files:a:", "mcp+my.git:b:"]}});
    assert_eq!(message["params"], expected);
}
