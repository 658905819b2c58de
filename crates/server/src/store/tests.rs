//! Tests of the store: what is there when it is opened again, and in which order.

use super::*;

fn job(prompt: &str) -> Job {
    Job {
        id: JobId::random().unwrap(),
        user: "me".to_owned(),
        priority: 0,
        state: State::Queued,
        model: "demo".to_owned(),
        created: now(),
        started: None,
        finished: None,
        request: JobRequest {
            prompt: prompt.to_owned(),
            ..JobRequest::default()
        },
        plan: None,
        images: Vec::new(),
        warnings: Vec::new(),
        error: None,
    }
}

#[test]
fn jobs_are_there_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.sqlite");
    let (first, mut second) = (job("one"), job("two"));
    let store = Store::open(&file).unwrap();
    store.add(&first).unwrap();
    store.add(&second).unwrap();
    second = store.begin(&second.id, now()).unwrap().unwrap();
    assert_eq!(second.state, State::Running);
    assert!(store.begin(&second.id, now()).unwrap().is_none());
    drop(store);
    let store = Store::open(&file).unwrap();
    assert_eq!(store.waiting().unwrap().len(), 1);
    assert_eq!(store.requeue_running().unwrap(), 1);
    let waiting: Vec<JobId> = store.waiting().unwrap().into_iter().map(|job| job.id).collect();
    assert_eq!(waiting, [first.id.clone(), second.id.clone()]);
    assert_eq!(store.job(&first.id).unwrap().unwrap().request.prompt, "one");
    assert!(store.cancel_waiting(&first.id).unwrap());
    assert!(!store.cancel_waiting(&first.id).unwrap());
}

#[test]
fn what_is_written_without_waiting_is_synced_later() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("jobs.sqlite")).unwrap();
    let mut job = job("a");
    store.add(&job).unwrap();
    job.state = State::Done;
    store.update_unsynced(&job, 0).unwrap();
    let synchronous = |connection: &Connection| {
        connection.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0))
    };
    // 2 is FULL: later commits wait for the disk again.
    assert_eq!(synchronous(&lock(&store.connection)).unwrap(), 2);
    assert!(store.log.is_file(), "there is nothing to sync");
    store.sync().unwrap();
}

#[test]
fn a_job_that_kills_the_server_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("jobs.sqlite")).unwrap();
    let job = job("a");
    store.add(&job).unwrap();
    for _ in 1..MOST_KILLS {
        assert!(store.begin(&job.id, now()).unwrap().is_some());
        assert_eq!(store.requeue_running().unwrap(), 1);
    }
    assert!(store.begin(&job.id, now()).unwrap().is_some());
    assert_eq!(store.requeue_running().unwrap(), 0);
    let job = store.job(&job.id).unwrap().unwrap();
    assert_eq!(
        (job.state, job.error.unwrap().code.as_str()),
        (State::Failed, "killed")
    );
}

#[test]
fn places_are_those_of_the_priority() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("jobs.sqlite")).unwrap();
    let (first, mut urgent, third) = (job("a"), job("b"), job("c"));
    urgent.priority = 1;
    for job in [&first, &urgent, &third] {
        store.add(job).unwrap();
    }
    let position = |job: &Job| store.position(&job.id).unwrap();
    assert_eq!(
        [&first, &urgent, &third].map(position),
        [Some(2), Some(1), Some(3)]
    );
    assert!(store.cancel_waiting(&first.id).unwrap());
    assert_eq!([&first, &third].map(position), [None, Some(2)]);
    assert_eq!(
        (store.waiting_of("me").unwrap(), store.waiting_of("you").unwrap()),
        (2, 0)
    );
}

#[test]
fn what_another_version_wrote_is_still_listed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("jobs.sqlite")).unwrap();
    let job = job("a");
    store.add(&job).unwrap();
    lock(&store.connection)
        .execute(
            "UPDATE jobs SET request = '{\"prompt\":\"a\",\"later\":1}', rest = '7'",
            [],
        )
        .unwrap();
    assert_eq!(
        store.job(&job.id).unwrap().unwrap().request,
        JobRequest::default()
    );
}

#[test]
fn the_oldest_are_outdated_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("jobs.sqlite")).unwrap();
    let mut ids = Vec::new();
    for index in 0..4 {
        let mut job = job("a");
        store.add(&job).unwrap();
        job.state = State::Done;
        job.finished = Some(index);
        store.update_unsynced(&job, 100).unwrap();
        ids.push(job.id);
    }
    assert_eq!(store.outdated(0, 1000).unwrap(), []);
    assert_eq!(store.outdated(2, 1000).unwrap(), ids[..2]);
    assert_eq!(store.outdated(0, 250).unwrap(), ids[..2]);
    assert!(store.remove_ended(&ids[0]).unwrap());
    let filter = Filter {
        before: Some(ids[2].clone()),
        limit: 10,
        ..Filter::default()
    };
    assert_eq!(store.list(&filter).unwrap()[0].id, ids[1]);
}
