//! Many questions to many clusters, for one answer.
//!
//! Who says nothing keeps nobody else from being asked:
//!
//! * The clusters take turns, so that one with many questions stands before nobody.
//! * A cluster is asked one question first, and more at once only when it has said something. One that says nothing holds
//!   one place, however much it is to be asked.
//! * Of one that cannot be reached, or does not answer in time, nothing else is asked: each question would take as long and
//!   come to the same. What is under way to it ends.

use std::collections::{HashMap, VecDeque};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;
use umbra_apimachinery::status::Status;

use super::exchange::Unanswered;

/// Questions under way at once. So many clusters that say nothing, at the same time, keep others from being asked until they
/// are given up, or their circuits open.
const AT_ONCE: usize = 64;
/// Questions to one cluster under way at once, when it answers. A tenant of 200 namespaces there has an answer after 50 round
/// trips, 5 s at 100 ms, and holds a hundredth of the requests that the hub has under way to a child at most.
const AT_ONCE_EACH: usize = 4;

/// Asks each cluster its questions, and returns what was answered in the order of the questions. Of a cluster that was given up
/// there is one failure, and nothing of what it was not asked any more. Cancel safe: dropped, it ends all questions.
pub(super) async fn ask_all<T, F>(questions: Vec<(String, F)>) -> Vec<(String, Result<T, Status>)>
where
    F: Future<Output = Result<T, Unanswered>>,
{
    let mut turns = Turns::new(questions);
    let mut under_way = FuturesUnordered::new();
    let mut answers = Vec::new();
    loop {
        while under_way.len() < AT_ONCE
            && let Some((asked, question, given_up)) = turns.next()
        {
            under_way.push(async move { (asked, given_up.run_until_cancelled_owned(question).await) });
        }
        let Some((asked, answer)) = under_way.next().await else {
            break;
        };
        let Some(answer) = answer else { continue };
        turns.note(asked, answer.as_ref().err());
        answers.push((asked, answer));
    }
    answers.sort_unstable_by_key(|(asked, _)| asked.position);
    let named = answers
        .into_iter()
        .map(|(asked, answer)| (turns.clusters[asked.cluster].name.clone(), answer.map_err(Status::from)));
    named.collect()
}

/// A question that was asked.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// Its cluster's place among the clusters.
    cluster: usize,
    /// Its own among all questions.
    position: usize,
}

struct Cluster<F> {
    name: String,
    /// What it has not been asked yet.
    waiting: VecDeque<(usize, F)>,
    under_way: usize,
    /// Whether it has said anything.
    has_spoken: bool,
    /// Whether it is in [`Turns::next`].
    is_in_turn: bool,
    given_up: CancellationToken,
}

impl<F> Cluster<F> {
    fn may_be_asked(&self) -> bool {
        let most = if self.has_spoken { AT_ONCE_EACH } else { 1 };
        self.under_way < most && !self.waiting.is_empty()
    }
}

/// Who is asked next.
struct Turns<F> {
    clusters: Vec<Cluster<F>>,
    /// Those that may be asked.
    next: VecDeque<usize>,
}

impl<F> Turns<F> {
    fn new(questions: Vec<(String, F)>) -> Self {
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut clusters: Vec<Cluster<F>> = Vec::new();
        for (position, (name, question)) in questions.into_iter().enumerate() {
            let place = *places.entry(name).or_insert_with_key(|name| {
                clusters.push(Cluster {
                    name: name.clone(),
                    waiting: VecDeque::new(),
                    under_way: 0,
                    has_spoken: false,
                    is_in_turn: true,
                    given_up: CancellationToken::new(),
                });
                clusters.len() - 1
            });
            clusters[place].waiting.push_back((position, question));
        }
        Self {
            next: (0..clusters.len()).collect(),
            clusters,
        }
    }

    /// The next question, and what ends it.
    fn next(&mut self) -> Option<(Asked, F, CancellationToken)> {
        let place = self.next.pop_front()?;
        let cluster = &mut self.clusters[place];
        cluster.is_in_turn = false;
        let (position, question) = cluster.waiting.pop_front()?;
        cluster.under_way += 1;
        let given_up = cluster.given_up.clone();
        self.queue(place);
        let asked = Asked {
            cluster: place,
            position,
        };
        Some((asked, question, given_up))
    }

    /// Notes that a question was answered, and how it failed.
    fn note(&mut self, asked: Asked, failure: Option<&Unanswered>) {
        let cluster = &mut self.clusters[asked.cluster];
        cluster.under_way -= 1;
        if failure.is_some_and(|failure| failure.is_lost) {
            cluster.given_up.cancel();
            cluster.waiting.clear();
            cluster.is_in_turn = false;
            self.next.retain(|place| *place != asked.cluster);
            return;
        }
        cluster.has_spoken = true;
        self.queue(asked.cluster);
    }

    fn queue(&mut self, place: usize) {
        let cluster = &mut self.clusters[place];
        if !cluster.is_in_turn && cluster.may_be_asked() {
            cluster.is_in_turn = true;
            self.next.push_back(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;

    use futures::poll;
    use parking_lot::Mutex;
    use umbra_apimachinery::status::Reason;

    use super::*;

    /// What a cluster says to a question.
    #[derive(Clone, Copy)]
    enum Says {
        Nothing,
        Yes,
        No,
        Lost,
    }

    /// Questions that write down whom they have been put to.
    #[derive(Default)]
    struct Log(Mutex<Vec<&'static str>>);

    impl Log {
        fn question(
            &self,
            cluster: &'static str,
            says: Says,
        ) -> (String, impl Future<Output = Result<(), Unanswered>>) {
            let question = async move {
                self.0.lock().push(cluster);
                match says {
                    Says::Nothing => pending().await,
                    Says::Yes => Ok(()),
                    Says::No | Says::Lost => Err(Unanswered {
                        status: Status::failure(Reason::ServiceUnavailable, "no"),
                        is_lost: matches!(says, Says::Lost),
                    }),
                }
            };
            (cluster.to_owned(), question)
        }

        fn asked(&self) -> Vec<&'static str> {
            self.0.lock().clone()
        }
    }

    #[tokio::test]
    async fn who_says_nothing_holds_one_place() {
        let log = Log::default();
        let silent = (0..200).map(|_| log.question("east", Says::Nothing));
        let mut all = pin!(ask_all(silent.chain([log.question("west", Says::Yes)]).collect()));
        assert!(poll!(&mut all).is_pending());
        assert_eq!(log.asked(), ["east", "west"]);
    }

    #[tokio::test]
    async fn who_answers_is_asked_some_at_once() {
        let log = Log::default();
        let mut questions = vec![log.question("east", Says::Yes)];
        questions.extend((0..10).map(|_| log.question("east", Says::Nothing)));
        let mut all = pin!(ask_all(questions));
        assert!(poll!(&mut all).is_pending());
        assert_eq!(log.asked().len(), 1 + AT_ONCE_EACH);
    }

    #[tokio::test]
    async fn who_cannot_be_reached_is_asked_nothing_else() {
        let log = Log::default();
        let questions = vec![
            log.question("east", Says::Yes),
            log.question("east", Says::Lost),
            log.question("east", Says::Nothing),
            log.question("east", Says::Nothing),
            log.question("east", Says::Nothing),
            log.question("east", Says::Nothing),
            log.question("west", Says::Yes),
            log.question("west", Says::No),
            log.question("west", Says::Yes),
        ];
        let answers = ask_all(questions).await;
        let answers: Vec<(&str, bool)> = answers
            .iter()
            .map(|(cluster, answer)| (cluster.as_str(), answer.is_ok()))
            .collect();
        // An answer that is a failure says nothing of the next.
        let wanted = [
            ("east", true),
            ("east", false),
            ("west", true),
            ("west", false),
            ("west", true),
        ];
        assert_eq!(answers, wanted);
        let asked = log.asked().into_iter().filter(|cluster| *cluster == "east");
        assert!(asked.count() < 6, "of who fails nothing else is asked");
    }

    #[tokio::test]
    async fn not_more_than_so_many_are_asked_at_once() {
        let log = Log::default();
        let names: Vec<&'static str> = (0..AT_ONCE + 1)
            .map(|number| &*format!("cluster-{number}").leak())
            .collect();
        let mut all = pin!(ask_all(
            names.iter().map(|name| log.question(name, Says::Nothing)).collect()
        ));
        assert!(poll!(&mut all).is_pending());
        assert_eq!(log.asked(), names[..AT_ONCE]);
    }
}
