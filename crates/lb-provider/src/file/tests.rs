use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use lb_config::dynamic::Middleware;
use tempfile::TempDir;

use super::*;

/// What the promise says: from the change on disk to the reading handed over.
const LIVE_WITHIN: Duration = Duration::from_millis(250);
/// Where only the outcome matters, on a machine that is busy with other tests.
const AT_LAST: Duration = Duration::from_secs(10);

/// A running provider and what it delivered.
struct Followed {
    provider: FileProvider,
    first: Reading,
    readings: mpsc::Receiver<Reading>,
}

fn follow(source: FileSource) -> Followed {
    let Started { provider, first, readings } =
        FileProvider::start(source, true, Context::default()).unwrap();
    Followed { provider, first, readings }
}

fn follow_file(path: &Path) -> Followed {
    follow(FileSource::File(path.to_owned()))
}

fn follow_directory(path: &Path) -> Followed {
    follow(FileSource::Directory(path.to_owned()))
}

impl Followed {
    /// The next reading; `None` when there is none within `patience`.
    fn next(&mut self, patience: Duration) -> Option<Reading> {
        let deadline = Instant::now() + patience;
        loop {
            match self.readings.try_recv() {
                Ok(reading) => return Some(reading),
                Err(mpsc::error::TryRecvError::Disconnected) => panic!("the provider has ended"),
                Err(mpsc::error::TryRecvError::Empty) if Instant::now() >= deadline => return None,
                Err(mpsc::error::TryRecvError::Empty) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Waits for a good reading that says exactly this; refused ones on the way fail the test.
    #[track_caller]
    fn becomes(&mut self, expected: &[&str], within: Duration) {
        let start = Instant::now();
        loop {
            let left = within.saturating_sub(start.elapsed());
            let reading = self.next(left).unwrap_or_else(|| panic!("not {expected:?} within {within:?}"));
            let loaded = reading.unwrap_or_else(|problems| panic!("refused: {problems}"));
            if prefixes(&loaded) == expected {
                return;
            }
        }
    }

    /// Waits for a refusal and returns its text; a good reading before it fails the test.
    #[track_caller]
    fn refuses(&mut self) -> String {
        match self.next(AT_LAST) {
            Some(Err(problems)) => problems.to_string(),
            Some(Ok(loaded)) => panic!("accepted {:?}", prefixes(&loaded)),
            None => panic!("said nothing"),
        }
    }

    #[track_caller]
    fn stays_silent(&mut self, during: Duration) {
        if let Some(reading) = self.next(during) {
            panic!("delivered {:?}", reading.map(|loaded| prefixes(&loaded)));
        }
    }
}

/// A configuration with one middleware of that name.
fn says(name: &str) -> String {
    format!("http:\n  middlewares:\n    {name}:\n      addPrefix:\n        prefix: /{name}\n")
}

fn prefixes(loaded: &Loaded) -> Vec<String> {
    loaded.config.middlewares.keys().map(|name| name.trim_end_matches("@file").to_owned()).collect()
}

fn first(followed: &Followed) -> Vec<String> {
    prefixes(followed.first.as_ref().unwrap_or_else(|problems| panic!("refused: {problems}")))
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn an_edit_in_place_is_live_within_250_ms() {
    let dir = directory();
    let file = dir.path().join("dynamic.yml");
    fs::write(&file, says("a")).unwrap();
    let mut followed = follow_file(&file);
    assert_eq!(first(&followed), ["a"]);
    for name in ["b", "c", "d"] {
        fs::write(&file, says(name)).unwrap();
        followed.becomes(&[name], LIVE_WITHIN);
    }
}

#[test]
fn a_replacement_by_rename_is_live_within_250_ms() {
    let dir = directory();
    let (file, new) = (dir.path().join("dynamic.yml"), dir.path().join("dynamic.yml.new"));
    fs::write(&file, says("a")).unwrap();
    let mut followed = follow_file(&file);
    for name in ["b", "c", "d"] {
        fs::write(&new, says(name)).unwrap();
        fs::rename(&new, &file).unwrap();
        followed.becomes(&[name], LIVE_WITHIN);
    }
}

#[test]
fn an_editor_that_moves_the_old_file_away_first_is_followed() {
    let dir = directory();
    let (file, backup) = (dir.path().join("dynamic.yml"), dir.path().join("dynamic.yml~"));
    fs::write(&file, says("a")).unwrap();
    let mut followed = follow_file(&file);
    fs::rename(&file, &backup).unwrap();
    thread::sleep(Duration::from_millis(40)); // the gap is what is tested
    fs::write(&file, says("b")).unwrap();
    fs::remove_file(&backup).unwrap();
    followed.becomes(&["b"], LIVE_WITHIN);
}

#[test]
fn a_config_map_swap_is_live_within_250_ms() {
    let dir = directory();
    let version = |name: &str, content: &str| {
        let version = dir.path().join(name);
        fs::create_dir(&version).unwrap();
        fs::write(version.join("dynamic.yml"), says(content)).unwrap();
    };
    let swap = |to: &str| {
        symlink(to, dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    };
    version("..v1", "a");
    swap("..v1");
    symlink("..data/dynamic.yml", dir.path().join("dynamic.yml")).unwrap();
    let mut by_file = follow_file(&dir.path().join("dynamic.yml"));
    let mut by_directory = follow_directory(dir.path());
    assert_eq!((first(&by_file), first(&by_directory)), (vec!["a".to_owned()], vec!["a".to_owned()]));
    for (old, new, content) in [("..v1", "..v2", "b"), ("..v2", "..v3", "c")] {
        version(new, content);
        swap(new);
        fs::remove_dir_all(dir.path().join(old)).unwrap();
        by_file.becomes(&[content], LIVE_WITHIN);
        by_directory.becomes(&[content], LIVE_WITHIN);
    }
}

#[test]
fn a_link_to_a_release_directory_elsewhere_is_followed() {
    let dir = directory();
    for release in ["1", "2"] {
        let conf = dir.path().join("releases").join(release).join("conf");
        fs::create_dir_all(&conf).unwrap();
        fs::write(conf.join("dynamic.yml"), says(&format!("r{release}"))).unwrap();
    }
    let current = dir.path().join("current");
    symlink("releases/1", &current).unwrap();
    let mut followed = follow_file(&current.join("conf/dynamic.yml"));
    assert_eq!(first(&followed), ["r1"]);
    symlink("releases/2", dir.path().join("next")).unwrap();
    fs::rename(dir.path().join("next"), &current).unwrap();
    followed.becomes(&["r2"], LIVE_WITHIN);
    fs::write(dir.path().join("releases/2/conf/dynamic.yml"), says("edited")).unwrap();
    followed.becomes(&["edited"], LIVE_WITHIN);
}

#[test]
fn files_of_a_directory_and_its_sub_directories_come_change_and_go() {
    let dir = directory();
    fs::write(dir.path().join("a.yml"), says("a")).unwrap();
    let mut followed = follow_directory(dir.path());
    assert_eq!(first(&followed), ["a"]);
    fs::create_dir_all(dir.path().join("sub/deep")).unwrap();
    fs::write(dir.path().join("sub/deep/b.yml"), says("b")).unwrap();
    followed.becomes(&["a", "b"], LIVE_WITHIN);
    fs::write(dir.path().join("sub/deep/b.yml"), says("c")).unwrap();
    followed.becomes(&["a", "c"], LIVE_WITHIN);
    fs::write(dir.path().join("sub/notes.txt"), "not a configuration").unwrap();
    fs::remove_file(dir.path().join("a.yml")).unwrap();
    followed.becomes(&["c"], LIVE_WITHIN);
}

#[test]
fn a_truncated_file_is_waited_for() {
    let dir = directory();
    let file = dir.path().join("dynamic.yml");
    fs::write(&file, says("a")).unwrap();
    let mut followed = follow_file(&file);
    fs::write(&file, "").unwrap();
    thread::sleep(Duration::from_millis(100)); // shorter than the patience
    fs::write(&file, says("b")).unwrap();
    followed.becomes(&["b"], LIVE_WITHIN);
}

#[test]
fn a_half_written_file_is_waited_for_while_its_writer_holds_it() {
    use std::io::Write;
    let dir = directory();
    let file = dir.path().join("dynamic.yml");
    fs::write(&file, says("a")).unwrap();
    let mut followed = follow_file(&file);
    let mut writer = fs::File::create(&file).unwrap();
    // Each half is a valid file; only the writer knows that the first is not all.
    writer.write_all(says("b").as_bytes()).unwrap();
    thread::sleep(Duration::from_millis(80));
    writer.write_all(b"    c:\n      addPrefix:\n        prefix: /c\n").unwrap();
    drop(writer);
    let next = followed.next(LIVE_WITHIN).unwrap().unwrap();
    assert_eq!(prefixes(&next), ["b", "c"]);
}

#[test]
fn a_file_that_stays_empty_or_vanishes_is_refused_with_the_reason() {
    let dir = directory();
    let file = dir.path().join("dynamic.yml");
    fs::write(&file, says("a")).unwrap();
    let mut followed = follow_file(&file);
    fs::write(&file, "\n").unwrap();
    assert!(followed.refuses().contains("dynamic.yml: the file is empty"));
    fs::write(&file, says("a")).unwrap();
    followed.becomes(&["a"], LIVE_WITHIN);
    // What a writer has got to, or a file of which all was commented out.
    fs::write(&file, "# managed by us\nhttp:\n  middlewares:\n#    a:\n").unwrap();
    assert!(followed.refuses().contains("dynamic.yml: the file defines nothing"));
    fs::remove_file(&file).unwrap();
    assert!(followed.refuses().contains("dynamic.yml: there is no such file"));
    fs::write(&file, says("a")).unwrap();
    followed.becomes(&["a"], LIVE_WITHIN); // delivered again: whoever listens learns that all is well
    followed.stays_silent(Duration::from_millis(300));
}

#[test]
fn a_file_emptied_in_a_directory_stays_as_it_was_and_holds_up_no_other() {
    let dir = directory();
    let [a, b] = ["a", "b"].map(|name| dir.path().join(format!("{name}.yml")));
    fs::write(&a, says("a")).unwrap();
    fs::write(&b, says("b")).unwrap();
    let mut followed = follow_directory(dir.path());
    fs::write(&a, "").unwrap();
    let kept = followed.next(AT_LAST).unwrap().unwrap();
    assert_eq!(prefixes(&kept), ["a", "b"]);
    assert!(kept.stale_files[a.to_str().unwrap()][0].contains("a.yml: the file is empty"));
    fs::write(&b, says("d")).unwrap();
    followed.becomes(&["a", "d"], LIVE_WITHIN);
    fs::write(&a, "http: [").unwrap();
    fs::write(&b, says("b")).unwrap();
    followed.becomes(&["a", "b"], AT_LAST);
    fs::write(&a, says("c")).unwrap();
    followed.becomes(&["b", "c"], LIVE_WITHIN);
    fs::remove_file(&a).unwrap();
    fs::write(&b, "").unwrap();
    assert!(followed.refuses().contains("b.yml: the file is empty"));
    fs::remove_file(&b).unwrap();
    assert!(followed.refuses().contains("no configuration file is left"));
    fs::rename(dir.path(), dir.path().with_extension("away")).unwrap();
    assert!(followed.refuses().contains("does not exist"));
    fs::rename(dir.path().with_extension("away"), dir.path()).unwrap();
}

/// A named pipe would hold up whoever opens it, for good.
#[test]
fn what_is_no_regular_file_holds_nobody_up() {
    let dir = directory();
    let [a, pipe] = ["a", "pipe"].map(|name| dir.path().join(format!("{name}.yml")));
    fs::write(&a, says("a")).unwrap();
    let mut followed = follow_directory(dir.path());
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let kept = followed.next(AT_LAST).unwrap().unwrap();
    assert!(kept.stale_files[pipe.to_str().unwrap()][0].contains("is not a regular file"));
    fs::write(&a, says("b")).unwrap();
    followed.becomes(&["b"], LIVE_WITHIN);
}

#[test]
fn a_broken_file_is_refused_once_and_its_repair_is_live_within_250_ms() {
    let dir = directory();
    let file = dir.path().join("dynamic.yml");
    fs::write(&file, says("a")).unwrap();
    let mut followed = follow_file(&file);
    fs::write(&file, "http: [").unwrap();
    followed.refuses();
    followed.stays_silent(Duration::from_millis(1500)); // it is tried again meanwhile, with the same outcome
    fs::write(&file, says("b")).unwrap();
    followed.becomes(&["b"], LIVE_WITHIN);
}

#[test]
fn a_source_broken_or_missing_at_the_start_is_refused_and_then_followed() {
    let dir = directory();
    let file = dir.path().join("not/yet/there/dynamic.yml");
    let mut followed = follow_file(&file);
    assert!(followed.first.as_ref().unwrap_err().to_string().contains("there is no such file"));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, says("a")).unwrap();
    followed.becomes(&["a"], LIVE_WITHIN);

    let mut followed = follow_directory(&dir.path().join("later"));
    assert!(followed.first.is_err());
    fs::create_dir(dir.path().join("later")).unwrap();
    fs::write(dir.path().join("later/x.yml"), says("x")).unwrap();
    followed.becomes(&["x"], LIVE_WITHIN);
}

#[test]
fn a_directory_deleted_and_recreated_or_replaced_is_followed() {
    let dir = directory();
    let conf = dir.path().join("conf");
    fs::create_dir(&conf).unwrap();
    fs::write(conf.join("a.yml"), says("a")).unwrap();
    let mut followed = follow_directory(&conf);
    fs::remove_dir_all(&conf).unwrap();
    followed.refuses();
    fs::create_dir(&conf).unwrap();
    fs::write(conf.join("b.yml"), says("b")).unwrap();
    followed.becomes(&["b"], LIVE_WITHIN);
    let next = dir.path().join("next");
    fs::create_dir(&next).unwrap();
    fs::write(next.join("c.yml"), says("c")).unwrap();
    fs::rename(&conf, dir.path().join("old")).unwrap();
    fs::rename(&next, &conf).unwrap();
    followed.becomes(&["c"], LIVE_WITHIN);
    fs::write(conf.join("c.yml"), says("d")).unwrap();
    followed.becomes(&["d"], LIVE_WITHIN);
}

#[test]
fn files_that_the_configuration_names_are_followed_and_waited_for() {
    let dir = directory();
    let (file, users) = (dir.path().join("conf/dynamic.yml"), dir.path().join("secrets/users"));
    fs::create_dir(file.parent().unwrap()).unwrap();
    let auth = format!(
        "http:\n  middlewares:\n    auth:\n      basicAuth:\n        usersFile: {}\n",
        users.display()
    );
    fs::write(&file, auth).unwrap();
    let names = |loaded: &Loaded| match loaded.config.middlewares.get("auth@file") {
        Some(Middleware::BasicAuth(auth)) => auth.users.keys().cloned().collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    let user = |name: &str| format!("{name}:{{SHA}}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n");
    let mut followed = follow_file(&file);
    assert_eq!(names(followed.first.as_ref().unwrap()), [""; 0]);
    // It was missing, and its directory too.
    fs::create_dir(users.parent().unwrap()).unwrap();
    fs::write(&users, user("ann")).unwrap();
    assert_eq!(names(&followed.next(LIVE_WITHIN).unwrap().unwrap()), ["ann"]);
    fs::write(&users, user("bob")).unwrap();
    assert_eq!(names(&followed.next(LIVE_WITHIN).unwrap().unwrap()), ["bob"]);
    fs::write(&users, "").unwrap();
    thread::sleep(Duration::from_millis(100)); // shorter than the patience
    fs::write(&users, user("eve")).unwrap();
    assert_eq!(names(&followed.next(LIVE_WITHIN).unwrap().unwrap()), ["eve"]);
}

#[test]
fn a_storm_of_changes_is_read_a_few_times_and_its_last_word_counts() {
    let dir = directory();
    let file = dir.path().join("dynamic.yml");
    fs::write(&file, says("a")).unwrap();
    let mut followed = follow_file(&file);
    let start = Instant::now();
    let (mut read, mut last) = (0, Vec::new());
    for number in 0..400 {
        let new = dir.path().join("new");
        fs::write(&new, says(&format!("n{number}"))).unwrap();
        fs::rename(&new, &file).unwrap();
        thread::sleep(Duration::from_millis(1));
        while let Ok(reading) = followed.readings.try_recv() {
            read += 1;
            last = prefixes(&reading.expect("all versions are good"));
        }
    }
    let bursts = start.elapsed().as_millis() / QUIET.as_millis() + 1;
    if last != ["n399"] {
        followed.becomes(&["n399"], LIVE_WITHIN);
    }
    assert!(read <= bursts && read < 200, "400 changes were read {read} times");
}

/// Processor time of a thread, in clock ticks.
fn ticks(task: &Path) -> u64 {
    let stat = fs::read_to_string(task.join("stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // utime and stime, of which proc_pid_stat(5) numbers the first 14.
    fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_log_beside_the_file_costs_little_and_holds_up_no_change() {
    let dir = directory();
    let file = dir.path().join("dynamic.yml");
    fs::write(&file, says("a")).unwrap();
    let mut followed = follow_file(&file);
    let mut tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let watcher = tasks.find(|task| fs::read_to_string(task.join("comm")).unwrap().starts_with("notify-rs"));
    let watcher = watcher.expect("the watcher has a thread");
    let before = ticks(&watcher);

    let mut log = fs::File::create(dir.path().join("access.log")).unwrap();
    let writer = thread::spawn(move || {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) {
            std::io::Write::write_all(&mut log, b"a line\n").unwrap();
        }
        ticks(Path::new("/proc/thread-self"))
    });
    thread::sleep(Duration::from_millis(200));
    fs::write(&file, says("b")).unwrap();
    followed.becomes(&["b"], LIVE_WITHIN);
    let writing = writer.join().unwrap();
    let watching = ticks(&watcher) - before;
    assert!(watching * 6 <= writing, "watching took {watching} ticks, writing {writing}");
}

#[test]
fn asked_to_it_reads_again_what_did_not_change() {
    let dir = directory();
    let file = dir.path().join("dynamic.yml");
    fs::write(&file, says("a")).unwrap();
    for watch in [true, false] {
        let source = FileSource::File(file.clone());
        let Started { provider, first, readings } =
            FileProvider::start(source, watch, Context::default()).unwrap();
        let mut followed = Followed { provider, first, readings };
        followed.provider.reread();
        followed.becomes(&["a"], LIVE_WITHIN);
    }
}

#[test]
fn without_watch_nothing_is_followed() {
    let dir = directory();
    let file = dir.path().join("dynamic.yml");
    fs::write(&file, says("a")).unwrap();
    let source = FileSource::File(file.clone());
    let Started { provider, first, readings } =
        FileProvider::start(source, false, Context::default()).unwrap();
    let mut followed = Followed { provider, first, readings };
    fs::write(&file, says("b")).unwrap();
    followed.stays_silent(POLL + Duration::from_millis(300));
    followed.provider.reread();
    followed.becomes(&["b"], LIVE_WITHIN);
}

#[test]
fn without_notifications_a_change_is_found_by_polling() {
    let dir = directory();
    let file = dir.path().join("dynamic.yml");
    fs::write(&file, says("a")).unwrap();
    let source = FileSource::File(file.clone());
    let blind = |_| Some(Watch::without_notifications());
    let Started { provider, first, readings } =
        FileProvider::launch(source, blind, Context::default(), Follower::read_first).unwrap();
    let mut followed = Followed { provider, first, readings };
    fs::write(&file, says("b")).unwrap();
    followed.becomes(&["b"], POLL + LIVE_WITHIN);
    // The same size, the same name, another file.
    fs::write(dir.path().join("new"), says("c")).unwrap();
    fs::rename(dir.path().join("new"), &file).unwrap();
    followed.becomes(&["c"], POLL + LIVE_WITHIN);
}

#[test]
fn dropping_it_ends_its_thread() {
    let dir = directory();
    let file = dir.path().join("dynamic.yml");
    fs::write(&file, says("a")).unwrap();
    let Followed { provider, mut readings, .. } = follow_file(&file);
    drop(provider);
    let deadline = Instant::now() + AT_LAST;
    while !matches!(readings.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)) {
        assert!(Instant::now() < deadline, "the thread is still there");
        thread::sleep(Duration::from_millis(1));
    }
}
