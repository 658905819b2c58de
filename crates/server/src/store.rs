//! [`Store`]: the jobs on disk, in SQLite. A job that was added is there after a kill or a loss of power.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::job::{Job, JobError, JobId, JobRequest, PlanView, ResultImage, State};
use crate::lock::lock;
use crate::queue::Waiting;
use crate::{Error, Result};

/// Incremented when the tables change.
const VERSION: i64 = 1;
/// A job with which the server was killed so many times is not begun again: it may be what kills it.
const MOST_KILLS: i64 = 10;
/// How long another process is waited for, such as one that makes a copy.
const PATIENCE: Duration = Duration::from_secs(5);

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        user TEXT NOT NULL,
        priority INTEGER NOT NULL,
        state TEXT NOT NULL,
        model TEXT NOT NULL,
        created INTEGER NOT NULL,
        started INTEGER,
        finished INTEGER,
        bytes INTEGER NOT NULL DEFAULT 0,
        begun INTEGER NOT NULL DEFAULT 0,
        request TEXT NOT NULL,
        rest TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, number);
";
const COLUMNS: &str = "id, user, priority, state, model, created, started, finished, request, rest";

/// The jobs on disk.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Mutex<Connection>,
}

/// What no query asks for.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Rest {
    plan: Option<PlanView>,
    images: Vec<ResultImage>,
    warnings: Vec<String>,
    error: Option<JobError>,
}

/// Which jobs a list has, newest first.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// In one of these states; in any, if there are none.
    pub(crate) states: Vec<State>,
    /// Those of one user.
    pub(crate) user: Option<String>,
    /// Added before this one.
    pub(crate) before: Option<JobId>,
    pub(crate) limit: usize,
}

impl Store {
    /// The store in `file`, which is made if it is not there.
    ///
    /// # Errors
    /// It is none, is of a later version, or cannot be written.
    pub(crate) fn open(file: &Path) -> Result<Self> {
        let connection = Connection::open(file)?;
        connection.busy_timeout(PATIENCE)?;
        // Readers do not wait for the writer, and what was committed survives a loss of power.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version > VERSION {
            return Err(Error::Folder {
                path: file.to_owned(),
                source: std::io::Error::other("a newer version of this program wrote it"),
            });
        }
        connection.execute_batch(TABLES)?;
        connection.pragma_update(None, "user_version", VERSION)?;
        Ok(Self {
            connection: Mutex::new(connection),
        })
    }

    /// Adds a job that waits. When this returns, it is on disk.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn add(&self, job: &Job) -> Result<()> {
        let rest = Rest {
            plan: job.plan.clone(),
            warnings: job.warnings.clone(),
            ..Rest::default()
        };
        lock(&self.connection)
            .prepare_cached(
                "INSERT INTO jobs (id, user, priority, state, model, created, request, rest)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                job.id.as_str(),
                job.user,
                job.priority,
                job.state.name(),
                job.model,
                job.created,
                text(&job.request),
                text(&rest),
            ])?;
        Ok(())
    }

    /// Begins the job `id` at `time`, if it waits. After a loss of power it may wait again, so that the disk is not waited
    /// for.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn begin(&self, id: &JobId, time: i64) -> Result<Option<Job>> {
        let connection = lock(&self.connection);
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let begun = connection
            .prepare_cached(
                "UPDATE jobs SET state = 'running', started = ?2, begun = begun + 1
                 WHERE id = ?1 AND state = 'queued'",
            )
            .and_then(|mut statement| statement.execute(params![id.as_str(), time]));
        connection.pragma_update(None, "synchronous", "FULL")?;
        drop(connection);
        match begun? {
            0 => Ok(None),
            _ => self.job(id),
        }
    }

    /// Writes what became of a job, whose files take `bytes`.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn update(&self, job: &Job, bytes: u64) -> Result<()> {
        let rest = Rest {
            plan: job.plan.clone(),
            images: job.images.clone(),
            warnings: job.warnings.clone(),
            error: job.error.clone(),
        };
        lock(&self.connection)
            .prepare_cached(
                "UPDATE jobs SET state = ?2, started = ?3, finished = ?4, bytes = ?5, rest = ?6, begun = 0
                 WHERE id = ?1",
            )?
            .execute(params![
                job.id.as_str(),
                job.state.name(),
                job.started,
                job.finished,
                bytes as i64,
                text(&rest),
            ])?;
        Ok(())
    }

    /// Cancels a job if it waits, and returns whether it did.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn cancel_waiting(&self, id: &JobId) -> Result<bool> {
        let changed = lock(&self.connection)
            .prepare_cached(
                "UPDATE jobs SET state = 'cancelled', finished = ?2 WHERE id = ?1 AND state = 'queued'",
            )?
            .execute(params![id.as_str(), now()])?;
        Ok(changed > 0)
    }

    /// The job `id`.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn job(&self, id: &JobId) -> Result<Option<Job>> {
        Ok(lock(&self.connection)
            .prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1"))?
            .query_row([id.as_str()], read)
            .optional()?)
    }

    /// The jobs of a list, the newest first.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn list(&self, filter: &Filter) -> Result<Vec<Job>> {
        // The names of states are this program's own.
        let states: Vec<String> = filter
            .states
            .iter()
            .map(|state| format!("'{}'", state.name()))
            .collect();
        let states = match states.is_empty() {
            true => String::new(),
            false => format!("AND state IN ({})", states.join(", ")),
        };
        let query = format!(
            "SELECT {COLUMNS} FROM jobs
             WHERE number < coalesce((SELECT number FROM jobs WHERE id = ?1), 9223372036854775807)
                AND (?3 IS NULL OR user = ?3) {states}
             ORDER BY number DESC LIMIT ?2"
        );
        let connection = lock(&self.connection);
        let mut statement = connection.prepare_cached(&query)?;
        let before = filter.before.as_ref().map(JobId::as_str);
        let rows = statement.query_map(params![before, filter.limit as i64, filter.user], read)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The jobs that wait, in the order in which they came.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn waiting(&self) -> Result<Vec<Waiting>> {
        let connection = lock(&self.connection);
        let mut statement = connection.prepare_cached(
            "SELECT id, user, priority, model, created FROM jobs WHERE state = 'queued' ORDER BY number",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(Waiting {
                id: id(row, 0)?,
                user: row.get(1)?,
                priority: row.get(2)?,
                model: row.get(3)?,
                created: row.get(4)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// How many jobs of `user` wait.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn waiting_of(&self, user: &str) -> Result<usize> {
        let count: i64 = lock(&self.connection)
            .prepare_cached("SELECT count(*) FROM jobs WHERE state = 'queued' AND user = ?1")?
            .query_row([user], |row| row.get(0))?;
        Ok(count as usize)
    }

    /// How many jobs wait.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn waiting_count(&self) -> Result<usize> {
        let count: i64 = lock(&self.connection)
            .prepare_cached("SELECT count(*) FROM jobs WHERE state = 'queued'")?
            .query_row([], |row| row.get(0))?;
        Ok(count as usize)
    }

    /// The place in the queue of the job `id`, from 1: behind those of a higher priority, and the older ones of its own.
    /// `None` if it does not wait.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn position(&self, id: &JobId) -> Result<Option<usize>> {
        let position: i64 = lock(&self.connection)
            .prepare_cached(
                "SELECT count(*) FROM jobs AS own JOIN jobs AS other
                    ON other.state = 'queued' AND (other.priority > own.priority
                        OR other.priority = own.priority AND other.number <= own.number)
                 WHERE own.id = ?1 AND own.state = 'queued'",
            )?
            .query_row([id.as_str()], |row| row.get(0))?;
        Ok((position > 0).then_some(position as usize))
    }

    /// Whether there is a job `id`.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn has(&self, id: &JobId) -> Result<bool> {
        Ok(lock(&self.connection)
            .prepare_cached("SELECT 1 FROM jobs WHERE id = ?1")?
            .exists([id.as_str()])?)
    }

    /// Lets the jobs that ran when the server was killed wait again, at the places that they had. One with which it was
    /// killed many times fails.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn requeue_running(&self) -> Result<usize> {
        let message = format!("the server was killed {MOST_KILLS} times while this job ran");
        let rest = Rest {
            error: Some(JobError::new("killed", message)),
            ..Rest::default()
        };
        let connection = lock(&self.connection);
        connection.execute(
            "UPDATE jobs SET state = 'failed', finished = ?1, rest = ?2 WHERE state = 'running' AND begun >= ?3",
            params![now(), text(&rest), MOST_KILLS],
        )?;
        Ok(connection.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'", [])?)
    }

    /// How many jobs there are in each state.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn counts(&self) -> Result<Vec<(State, u64)>> {
        let connection = lock(&self.connection);
        let mut statement = connection.prepare_cached("SELECT count(*) FROM jobs WHERE state = ?1")?;
        let count = |state: State| {
            let count: i64 = statement.query_row([state.name()], |row| row.get(0))?;
            Ok((state, count as u64))
        };
        State::ALL.into_iter().map(count).collect()
    }

    /// Ended jobs to remove: those that ended before `time`, and then the oldest until the others take at most `bytes`.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn outdated(&self, time: i64, bytes: u64) -> Result<Vec<JobId>> {
        let connection = lock(&self.connection);
        let mut statement = connection.prepare_cached(
            "SELECT id, finished, sum(bytes) OVER (ORDER BY number DESC) FROM jobs
             WHERE state IN ('done', 'failed', 'cancelled') ORDER BY number",
        )?;
        let rows = statement.query_map([], |row| {
            let finished: Option<i64> = row.get(1)?;
            let with_later: i64 = row.get(2)?;
            let is_old = finished.is_some_and(|finished| finished < time) || with_later as u64 > bytes;
            Ok(is_old.then_some(id(row, 0)?))
        })?;
        let found: rusqlite::Result<Vec<Option<JobId>>> = rows.collect();
        Ok(found?.into_iter().flatten().collect())
    }

    /// Removes an ended job, and returns whether there was one.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn remove_ended(&self, id: &JobId) -> Result<bool> {
        let removed = lock(&self.connection)
            .prepare_cached("DELETE FROM jobs WHERE id = ?1 AND state IN ('done', 'failed', 'cancelled')")?
            .execute([id.as_str()])?;
        Ok(removed > 0)
    }
}

/// The time now, in milliseconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_millis() as i64)
}

fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Job> {
    // What another version wrote may have fields that this one does not know. The job is still listed, and fails when
    // its turn comes.
    let rest: Rest = json(row, 9)?.unwrap_or_default();
    let state: String = row.get(3)?;
    Ok(Job {
        id: id(row, 0)?,
        user: row.get(1)?,
        priority: row.get(2)?,
        state: State::named(&state).ok_or_else(|| wrong(3, format!("a job is `{state}`")))?,
        model: row.get(4)?,
        created: row.get(5)?,
        started: row.get(6)?,
        finished: row.get(7)?,
        request: json::<JobRequest>(row, 8)?.unwrap_or_default(),
        plan: rest.plan,
        images: rest.images,
        warnings: rest.warnings,
        error: rest.error,
    })
}

fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<JobId> {
    let text: String = row.get(column)?;
    JobId::parse(&text).ok_or_else(|| wrong(column, format!("`{text}` is no id")))
}

fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let text: String = row.get(column)?;
    Ok(serde_json::from_str(&text).ok())
}

fn wrong(column: usize, reason: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, reason.into())
}

#[cfg(test)]
mod tests {
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
            store.update(&job, 100).unwrap();
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
}
