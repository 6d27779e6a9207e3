#include "base/team.h"

#include "base/cpu_count.h"

#ifdef PGI_OPENMP
#include <omp.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_THREADS = 1024,     /* the API allows no more */
    SPIN_NANOSECONDS = 30000, /* waking a thread takes about as long */
    PAUSES = 32             /* between two looks at the clock */
};

/* Parts of the gate. A job is closed while its number is not OPEN; a team that ends has QUIT set for good. */
enum { INSIDE = 0xFFF, OPEN = 0x1000, QUIT = 0x2000, NUMBER = ~(INSIDE | OPEN | QUIT), ONE_NUMBER = 0x4000 };

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* `yield` does nothing on most cores */
#endif
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Whether a thread that has seen job `number` has something to do, or is to end. */
static int is_called(uint32_t gate, uint32_t number) {
    return (gate & QUIT) || ((gate & OPEN) && (gate & NUMBER) != number);
}

static int is_empty(uint32_t gate, uint32_t number) {
    (void)number;
    return (gate & INSIDE) == 0;
}

/* Waits busily for a gate that is `wanted`, but not for long; returns the last one seen. */
static uint32_t spin(pgi_team *team, int (*wanted)(uint32_t gate, uint32_t number), uint32_t number) {
    uint32_t gate = atomic_load_explicit(&team->gate, memory_order_acquire);
    if (!team->spins || wanted(gate, number)) return gate;
    const int64_t end = now() + SPIN_NANOSECONDS;
    do {
        for (int i = 0; i < PAUSES; i++) {
            relax();
            gate = atomic_load_explicit(&team->gate, memory_order_acquire);
            if (wanted(gate, number)) return gate;
        }
    } while (now() < end);
    return gate;
}

/*
 * Sleeping: who is about to sleep says so and then looks at the gate once more; who changes the gate looks for sleepers
 * afterwards. Both are sequentially consistent, so one of them sees the other.
 */
static uint32_t wait_for_call(pgi_team *team, uint32_t number) {
    for (;;) {
        uint32_t gate = spin(team, is_called, number);
        if (is_called(gate, number)) return gate;
        pthread_mutex_lock(&team->mutex);
        atomic_fetch_add(&team->n_sleeping, 1);
        /* Not in a loop: woken too late for one job, a thread waits busily for the next. */
        if (!is_called(atomic_load(&team->gate), number)) pthread_cond_wait(&team->work, &team->mutex);
        atomic_fetch_sub(&team->n_sleeping, 1);
        pthread_mutex_unlock(&team->mutex);
    }
}

static void wait_for_others(pgi_team *team) {
    if (is_empty(spin(team, is_empty, 0), 0)) return;
    pthread_mutex_lock(&team->mutex);
    atomic_store(&team->caller_sleeps, 1);
    while (!is_empty(atomic_load(&team->gate), 0)) pthread_cond_wait(&team->done, &team->mutex);
    atomic_store(&team->caller_sleeps, 0);
    pthread_mutex_unlock(&team->mutex);
}

/* The lock is not to be had while someone is between deciding to sleep and sleeping. */
static void wait_for_sleepers(pgi_team *team) {
    pthread_mutex_lock(&team->mutex);
    pthread_mutex_unlock(&team->mutex);
}

static void wake_caller(pgi_team *team) {
    if (!atomic_load(&team->caller_sleeps)) return;
    wait_for_sleepers(team);
    pthread_cond_signal(&team->done);
}

static void wake_others(pgi_team *team, int64_t wanted) {
    const int n = atomic_load(&team->n_sleeping);
    if (n == 0) return;
    wait_for_sleepers(team);
    if (wanted < n)
        for (int64_t i = 0; i < wanted; i++) pthread_cond_signal(&team->work);
    else
        pthread_cond_broadcast(&team->work);
}

static void serve(pgi_team *team, int thread) {
    for (uint32_t number = 0;;) {
        uint32_t gate = wait_for_call(team, number);
        if (gate & QUIT) return;
        if (!atomic_compare_exchange_weak(&team->gate, &gate, gate + 1)) continue;
        number = gate & NUMBER;
        fesetenv(&team->environment);
        team->body(team->context, thread);
        gate = atomic_fetch_sub(&team->gate, 1) - 1;
        if (is_empty(gate, 0) && !(gate & OPEN)) wake_caller(team);
    }
}

/* ---- starting and ending ---- */

/* A host's handlers run on its own threads, except for what a thread does to itself. */
static void our_signals(sigset_t *set) {
    static const int own[] = {SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
    sigfillset(set);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(set, own[i]);
}

/* Under OMP_PROC_BIND the calling thread is held to one place (the first, as a rule), and OpenMP puts the first thread
 * of a region there too. Ours take the places after it. */
static void take_place(int thread) {
#if defined(__linux__)
    const int n_places = omp_get_num_places();
    if (n_places < 1 || omp_get_proc_bind() == omp_proc_bind_false) return;
    const int place = thread % n_places, n_cpus = omp_get_place_num_procs(place);
    int cpus[MAX_THREADS];
    cpu_set_t set;
    if (n_cpus < 1 || n_cpus > MAX_THREADS) return;
    omp_get_place_proc_ids(place, cpus);
    CPU_ZERO(&set);
    for (int i = 0; i < n_cpus; i++)
        if (cpus[i] < CPU_SETSIZE) CPU_SET(cpus[i], &set);
    sched_setaffinity(0, sizeof set, &set); /* refused: then it stays where it is */
#else
    (void)thread;
#endif
}

/* LLVM's OpenMP keeps threads for later when their region has ended, spinning for 0.2 s; for those of the calling thread
 * this switches that off. GNU's ends them. */
#if defined(__ELF__)
extern void kmp_set_blocktime(int) __attribute__((weak));
static void spin_in_no_pool(void) {
    if (kmp_set_blocktime) kmp_set_blocktime(0);
}
#else
static void spin_in_no_pool(void) {}
#endif

static void *wait_for_gate(void *gate) {
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

/* How many of `wanted` threads the system lets live at once, the calling one counted. OpenMP ends the process when it
 * is refused one (ulimit -u, the pids limit of a container), so they are created and joined first: twice as many, since the
 * system may still count threads that have been joined, and since another team may start meanwhile. */
static int try_threads(int wanted) {
    pthread_t threads[2 * MAX_THREADS];
    const int most = 2 * ((wanted < MAX_THREADS ? wanted : MAX_THREADS) - 1);
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    int n = 0;
    pthread_mutex_lock(&gate);
    while (n < most && pthread_create(&threads[n], NULL, wait_for_gate, &gate) == 0) n++;
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&gate);
    return n / 2 + 1;
}

static void report_presence(pgi_team *team) {
    pthread_mutex_lock(&team->mutex);
    team->n_expected = omp_get_num_threads();
    team->n_present++;
    pthread_cond_signal(&team->done);
    pthread_mutex_unlock(&team->mutex);
}

static void *lead(void *user) {
    pgi_team *team = user;
    const int limit = omp_get_thread_limit(); /* OMP_THREAD_LIMIT; beyond it LLVM's prints a warning */
    const int n = try_threads(team->n_threads - 1 < limit ? team->n_threads - 1 : limit);
#if defined(__linux__)
    pthread_setname_np(pthread_self(), "paligemma"); /* the others take it over */
#endif
    spin_in_no_pool();
#pragma omp parallel num_threads(n)
    {
        sigset_t ours, before; /* LLVM's OpenMP may lend a thread that it had for the host */
        const int thread = omp_get_thread_num();
#if defined(__linux__)
        cpu_set_t cpus;
        const int has_cpus = sched_getaffinity(0, sizeof cpus, &cpus) == 0;
#endif
        our_signals(&ours);
        pthread_sigmask(SIG_SETMASK, &ours, &before);
        take_place(1 + thread);
        report_presence(team);
        serve(team, 1 + thread);
        /* as it was: a thread that LLVM's made in this region keeps our signals, so that no handler runs there later */
#if defined(__linux__)
        if (has_cpus) sched_setaffinity(0, sizeof cpus, &cpus);
#endif
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    return NULL;
}

/* The calling thread may be held to one place by OMP_PROC_BIND, ours take the others. */
static int cpus_for_team(void) {
    const int n = pgi_cpu_count(), n_places = omp_get_proc_bind() == omp_proc_bind_false ? 0 : omp_get_num_places();
    return n > n_places ? n : n_places;
}

/* What a parent's threads left behind is written over: they do not exist here. */
static void start(pgi_team *team, pid_t self) {
    sigset_t ours, before;
    pthread_mutex_init(&team->mutex, NULL);
    pthread_cond_init(&team->work, NULL);
    pthread_cond_init(&team->done, NULL);
    atomic_store(&team->gate, 0);
    atomic_store(&team->n_sleeping, 0);
    atomic_store(&team->caller_sleeps, 0);
    team->n_present = team->n_expected = 0;
    team->owner = self;
    team->spins = cpus_for_team() >= team->n_threads;
    our_signals(&ours);
    pthread_sigmask(SIG_SETMASK, &ours, &before);
    team->has_leader = pthread_create(&team->leader, NULL, lead, team) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void pgi_team_open(pgi_team *team, int n_threads) {
    memset(team, 0, sizeof *team);
    team->n_threads = n_threads < MAX_THREADS ? n_threads : MAX_THREADS;
}

void pgi_team_start(pgi_team *team) {
    const pid_t self = getpid();
    if (team->n_threads == 1) return;
    if (team->owner != self) start(team, self);
    if (!team->has_leader) return;
    pthread_mutex_lock(&team->mutex);
    while (team->n_expected == 0 || team->n_present < team->n_expected) pthread_cond_wait(&team->done, &team->mutex);
    pthread_mutex_unlock(&team->mutex);
}

void pgi_team_close(pgi_team *team) {
    if (team->owner == 0 || team->owner != getpid()) return;
    if (team->has_leader) {
        atomic_fetch_or(&team->gate, QUIT);
        wake_others(team, team->n_threads);
        pthread_join(team->leader, NULL);
    }
    pthread_cond_destroy(&team->done);
    pthread_cond_destroy(&team->work);
    pthread_mutex_destroy(&team->mutex);
    team->owner = 0;
}

void pgi_team_run(pgi_team *team, pgi_team_fn body, void *context, int64_t helpers) {
    if (team->n_threads > 1) {
        const pid_t self = getpid();
        if (team->owner != self) start(team, self);
    }
    if (team->n_threads == 1 || !team->has_leader || helpers < 1) {
        body(context, 0);
        return;
    }
    team->body = body;
    team->context = context;
    fegetenv(&team->environment);
    const uint32_t number = (atomic_load_explicit(&team->gate, memory_order_relaxed) & NUMBER) + ONE_NUMBER;
    atomic_store(&team->gate, number | OPEN);
    wake_others(team, helpers);
    body(context, 0);
    if (!is_empty(atomic_fetch_and(&team->gate, ~(uint32_t)OPEN), 0)) wait_for_others(team);
}
#else
void pgi_team_open(pgi_team *team, int n_threads) { team->n_threads = n_threads; }

void pgi_team_start(pgi_team *team) { (void)team; }

void pgi_team_close(pgi_team *team) { (void)team; }

void pgi_team_run(pgi_team *team, pgi_team_fn body, void *context, int64_t helpers) {
    (void)team;
    (void)helpers;
    body(context, 0);
}
#endif
