/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A game whose agent is asked about what it sees, 60 frames a second: game MODEL [OPTIONS]; game --help */
#include <SDL.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "game.h"

static const char usage[] =
    "usage: game MODEL [OPTIONS]\n"
    "Arrow keys walk, Tab chooses the question, a typed one is asked by Return; Esc ends.\n"
    "  --demo             the agent walks by itself, and prints what it is asked and answers\n"
    "  --steps N          with --demo: ends after N questions (default 20: all places once)\n"
    "  --seconds S        ends after S seconds\n"
    "  --every S          asks again after S seconds, or when it can; 0: in each frame (default 0.25)\n"
    "  --threads N        threads of the computation (default 0: the library decides)\n"
    "  --nice N           0 to 19: how much the computation stands back (default 10)\n"
    "  --share-cpus       the computation may use the game's CPU, too\n"
    "  --no-worker        nobody answers: how the game runs without the library; MODEL is not opened\n"
    "  --work MS          so long the game does something else in each frame (default 0)\n"
    "  --times FILE       writes how long each frame took\n"
    "  --screenshot FILE  writes the last picture as a PNG\n"
    "Without a screen: SDL_VIDEODRIVER=dummy\n";

enum { MAX_FRAMES = 60 * 600 }; /* whose times are kept */

typedef struct options {
    const char *model, *times, *screenshot;
    int is_demo, no_worker, steps;
    double seconds, every, work;
    mind_options mind;
} options;

static int fail(const char *what, const char *why) {
    fprintf(stderr, "game: %s%s%s\n", what, why ? ": " : "", why ? why : "");
    return 0;
}

static int read_number(const char *option, const char *text, double low, double high, double *out) {
    char *end = NULL, message[128];
    *out = text ? strtod(text, &end) : 0;
    if (text && end != text && !*end && *out >= low && *out <= high) return 1;
    snprintf(message, sizeof message, "expected a number from %g to %g, found '%.40s'", low, high, text ? text : "");
    return fail(option, message);
}

static int read_options(int argc, char **argv, options *o) {
    *o = (options){.steps = 20, .every = .25, .seconds = 1e9, .mind = {.nice = 10, .leave_cpu_free = 1}};
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        double number = 0;
        int takes = 1, good = 1;
        if (strcmp(name, "--steps") == 0) {
            good = read_number(name, value, 1, 1e6, &number);
            o->steps = (int)number;
        } else if (strcmp(name, "--threads") == 0) {
            good = read_number(name, value, 0, 1024, &number);
            o->mind.n_threads = (int)number;
        } else if (strcmp(name, "--nice") == 0) {
            good = read_number(name, value, 0, 19, &number);
            o->mind.nice = (int)number;
        } else if (strcmp(name, "--seconds") == 0) {
            good = read_number(name, value, 0, 86400, &o->seconds);
        } else if (strcmp(name, "--every") == 0) {
            good = read_number(name, value, 0, 3600, &o->every);
        } else if (strcmp(name, "--work") == 0) {
            good = read_number(name, value, 0, 1000, &o->work);
        } else if (strcmp(name, "--times") == 0 || strcmp(name, "--screenshot") == 0) {
            good = value || fail(name, "expected a file to write");
            *(name[2] == 't' ? &o->times : &o->screenshot) = value;
        } else {
            takes = 0;
            if (strcmp(name, "--demo") == 0)
                o->is_demo = 1;
            else if (strcmp(name, "--share-cpus") == 0)
                o->mind.leave_cpu_free = 0;
            else if (strcmp(name, "--no-worker") == 0)
                o->no_worker = 1;
            else if (name[0] == '-' || o->model)
                good = fail(name, "no such option, and there is one MODEL; game --help tells what there is");
            else
                o->model = name;
        }
        if (!good) return 0;
        i += takes;
    }
    return o->model || fail("no MODEL: the folder of a checkpoint, such as examples/demo/model; see game --help", NULL);
}

/* ---- SDL ---- */

typedef struct window {
    SDL_Window *window;
    SDL_Renderer *renderer;
    SDL_Texture *texture;
} window;

static int window_open(window *w) {
    if (SDL_Init(SDL_INIT_VIDEO) != 0) return fail("SDL has no video", SDL_GetError());
    w->window = SDL_CreateWindow("libpaligemma", SDL_WINDOWPOS_UNDEFINED, SDL_WINDOWPOS_UNDEFINED, SCREEN_WIDTH,
                                 SCREEN_HEIGHT, 0);
    if (w->window) w->renderer = SDL_CreateRenderer(w->window, -1, 0);
    if (w->renderer)
        w->texture = SDL_CreateTexture(w->renderer, SDL_PIXELFORMAT_ARGB8888, SDL_TEXTUREACCESS_STREAMING, SCREEN_WIDTH,
                                       SCREEN_HEIGHT);
    return w->texture || fail("SDL makes no window", SDL_GetError());
}

static void window_close(window *w) {
    if (w->texture) SDL_DestroyTexture(w->texture);
    if (w->renderer) SDL_DestroyRenderer(w->renderer);
    if (w->window) SDL_DestroyWindow(w->window);
    SDL_Quit();
}

/* Returns 0 when the player wants to end. */
static int read_controls(controls *c) {
    SDL_Event event;
    memset(c, 0, sizeof *c);
    while (SDL_PollEvent(&event)) {
        if (event.type == SDL_QUIT) return 0;
        if (event.type == SDL_TEXTINPUT) {
            const size_t used = strlen(c->typed); /* of earlier keys in this frame */
            snprintf(c->typed + used, sizeof c->typed - used, "%s", event.text.text);
        }
        if (event.type != SDL_KEYDOWN) continue;
        const SDL_Keycode key = event.key.keysym.sym;
        if (key == SDLK_ESCAPE) return 0;
        c->other_question |= key == SDLK_TAB;
        c->erase += key == SDLK_BACKSPACE;
        c->ask |= key == SDLK_RETURN;
    }
    const Uint8 *keys = SDL_GetKeyboardState(NULL);
    c->turn = (float)(keys[SDL_SCANCODE_RIGHT] - keys[SDL_SCANCODE_LEFT]);
    c->walk = (float)(keys[SDL_SCANCODE_UP] - keys[SDL_SCANCODE_DOWN]);
    return 1;
}

/* ---- the loop ---- */

/* SDL_Delay() may sleep a millisecond too long; the rest is waited for awake. */
static void wait_until(double time) {
    const double left = time - now();
    if (left > .002) SDL_Delay((Uint32)(left * 1000 - 1));
    while (now() < time) continue;
}

/* Stands for what a real game does besides. */
static void work_for(double seconds) {
    const double end = now() + seconds;
    while (now() < end) continue;
}

static pg_status loop(const options *o, game *g, window *w, frame_times *times) {
    const double period = 1 / 60., begin = now();
    double start = begin, last = begin - period;
    controls c;
    while (read_controls(&c) && start - begin < o->seconds && !(o->is_demo && g->walk.step >= o->steps)) {
        double spent[N_PARTS] = {0};
        const pg_status status = game_frame(g, &c, (float)(start - last), times, spent);
        if (status < 0) return status;
        work_for(o->work / 1000);
        SDL_UpdateTexture(w->texture, NULL, g->screen.pixels, 4 * SCREEN_WIDTH);
        SDL_RenderCopy(w->renderer, w->texture, NULL, NULL);
        spent[FRAME_WORK] = now() - start;
        wait_until(start + period); /* as a screen of 60 Hz does */
        last = start;
        start = now();
        SDL_RenderPresent(w->renderer);
        spent[FRAME_WHOLE] = start - last;
        frame_times_add(times, spent);
    }
    return PG_OK;
}

static void print_part(const frame_times *t, const char *name, frame_part part) {
    printf("%s: median %.3f ms, 99%% %.3f ms, longest %.3f ms\n", name, (double)frame_times_part(t, part, .5f),
           (double)frame_times_part(t, part, .99f), (double)frame_times_part(t, part, 1));
}

static void print_summary(const game *g, const frame_times *t) {
    if (g->mind)
        printf("answers: %d, %d replaced by newer ones; of %d with a known answer %d right; of %d steps %d right\n",
               g->mind->n_answered, g->mind->n_replaced, g->n_known, g->n_right, g->n_steps, g->steps_right);
    printf("frames: %d, over %d ms: %d\n", t->n, FRAME_LATE, t->n_late);
    print_part(t, "frame", FRAME_WHOLE);
    print_part(t, "work", FRAME_WORK);
    if (!g->mind) return;
    print_part(t, "pg_worker_submit", FRAME_ASK);
    print_part(t, "pg_worker_poll", FRAME_LISTEN);
}

static int save(const options *o, const game *g, const frame_times *times) {
    const char *error = o->screenshot ? canvas_save(&g->screen, o->screenshot) : NULL;
    if (error) return fail(o->screenshot, error);
    return !o->times || frame_times_write(times, o->times) || fail(o->times, strerror(errno));
}

/* Returns whether it went well. */
static int play(const options *o, mind *m) {
    game g;
    window w = {0};
    frame_times times = {0};
    int good = (game_create(&g, m, o->is_demo) && frame_times_create(&times, MAX_FRAMES)) || fail("no memory", NULL);
    g.every = (float)o->every;
    good = good && window_open(&w);
    if (good) {
        good = loop(o, &g, &w, &times) >= 0 || fail("the worker", pg_last_error());
        if (g.failure[0]) good = fail("an answer", g.failure);
        print_summary(&g, &times);
        good = save(o, &g, &times) && good;
    }
    window_close(&w);
    frame_times_free(&times);
    game_free(&g);
    return good && (fflush(stdout) == 0 || fail("stdout", strerror(errno)));
}

int main(int argc, char **argv) {
    options o;
    mind m = {0};
    if (argc == 2 && strcmp(argv[1], "--help") == 0) return puts(usage) < 0;
    if (!read_options(argc, argv, &o)) return 1;
    int good = 1;
    if (!o.no_worker) good = mind_open(&m, o.model, &o.mind) >= 0 || fail(o.model, pg_last_error());
    good = good && play(&o, o.no_worker ? NULL : &m);
    mind_close(&m);
    return !good;
}
