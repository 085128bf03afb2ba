/* SPDX-License-Identifier: MIT */
/*
 * world.h - what the fuzzer of the driver's ABI knows, and what must be so.
 *
 * A sequence is a process: it issues commands and I/O, and after each step compares what came
 * back with this model.  All of it is in memory shared with the process that runs sequences
 * (which reports, and cleans up after one that failed) and with the servers of the devices.
 */
#ifndef UBLKZC_TESTS_FUZZ_WORLD_H
#define UBLKZC_TESTS_FUZZ_WORLD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "tests/vm/abi/abi_server.h"

#define PAGE 4096UL
#define NR_DEVICES 2U
#define NR_PAGES 96U /* of the arena, which requests and buffers are in */
#define NR_BUFFERS NR_PAGES
#define OWNER_PAGES 24U /* of private memory (foreign.c): their numbers follow the arena's */
#define DISK_BYTES (4UL << 20)
#define IO_BYTES (128UL << 10)		 /* the largest request */
#define NR_SLOTS (DISK_BYTES / IO_BYTES) /* of the disk: a request stays in one */
#define HELD_SLOT (NR_SLOTS - 1)
#define MAX_DEPTH 8U
#define MAX_QUEUES 2U
#define MAX_STEPS 64U

/*
 * The arena's pages are mapped three times: in order, in an order of the sequence's own, and in
 * order but read-only.  Behind each is a hole.
 */
enum view { IN_ORDER, SHUFFLED, READ_ONLY, NR_VIEWS };

enum life {
	NONE,
	ADDED, /* no disk */
	LIVE,
	QUIESCED,   /* the server died, requests wait */
	RECOVERING, /* between START_ and END_USER_RECOVERY */
	SPENT,	    /* was stopped, or its server died before it started: only to be deleted */
};

/* What a server has fetched of what it must. */
enum fetched { NO_SERVER, SOME, ALL };

struct buffer {
	atomic_bool used;
	bool read_only;
	unsigned int nr;
	bool ended;		      /* the private memory is gone */
	uint32_t pid;		      /* whose it is, or was */
	unsigned int pages[NR_PAGES]; /* in the buffer's order */
	enum view view;		      /* where they follow each other ... */
	unsigned int first;	      /* ... from here on */
};

enum outcome { COPIED, MATCHED, LISTED };

/* How the last request in a slot of the disk was handed over. */
struct handed {
	atomic_uint times;
	uint32_t op_flags;
	uint64_t addr;
	uint32_t bytes;
	uint64_t at; /* on the disk */
	struct uapi_shmem_seg list[UAPI_SHMEM_SEGS_MAX];
};

struct device {
	enum life life;
	enum fetched fetched;
	unsigned int number;
	uint64_t flags;
	unsigned int depth, nr_queues;
	struct uapi_params params;
	bool has_params;
	bool was_ready; /* some server had fetched all */
	struct buffer buffers[NR_BUFFERS];
	pid_t server;
	int disk_fd;
	/* for the server */
	atomic_bool serving;
	unsigned int nr_fetch; /* how many tags it fetches on, of all queues */
	atomic_bool hold;      /* keep what is in the last slot of the disk */
	atomic_uint nr_held;
	atomic_bool may_be_unknown; /* a buffer may be registered that is not in @buffers yet */
	struct handed handed[NR_SLOTS];
	uint8_t disk[DISK_BYTES];
};

struct world {
	uint64_t seed;
	unsigned int nr_steps;
	uint64_t skipped; /* steps, a bit each, left out to find those that matter */
	bool ours;	  /* the driver of kernel-patch/, on whatever kernel */
	bool is_612;
	uint64_t features;
	uint8_t *views[NR_VIEWS];
	unsigned int order[NR_PAGES]; /* of the shuffled view */
	unsigned int at_step, at_device;
	uint64_t random; /* of the step */
	struct device devices[NR_DEVICES];
	unsigned long long nr_done[32];	   /* of each kind of step */
	unsigned long long nr_requests[3]; /* by outcome */
	unsigned long long
		nr_moved; /* private memory that the kernel moved: buffers ended by that */
	atomic_bool failed;
	char failure[1024];
	size_t trace_end;
	char trace[MAX_STEPS * 160];
};

extern struct world *world;

/* Says what is wrong and ends the sequence; the first one counts. */
__attribute__((noreturn, format(printf, 1, 2))) void wrong(const char *format, ...);
/* What a step does, for the report. */
__attribute__((format(printf, 1, 2))) void trace(const char *format, ...);
void expect(int got, int expected, const char *what);

/* From the step's own generator: what one step draws does not change the others. */
uint64_t draw(void);
static inline unsigned int below(unsigned int n)
{
	return (unsigned int)(draw() % n);
}
static inline bool one_in(unsigned int n)
{
	return below(n) == 0;
}

/* Commands; raw results. */
int command(struct device *d, unsigned int op, const void *addr, uint16_t len, uint64_t data);
int command_raw(unsigned int op, unsigned int number, uint64_t addr, uint16_t len, uint64_t data);

/* ---- devices ---- */
void step_add(struct device *d);
void step_params(struct device *d);
void step_serve(struct device *d);
void step_start(struct device *d);
void step_stop(struct device *d);
void step_delete(struct device *d);
void step_kill(struct device *d);
void step_begin_recovery(struct device *d);
void step_end_recovery(struct device *d);
void step_ask(struct device *d);
void step_nonsense(struct device *d);
void delete_device(struct device *d, bool wait);
void kill_server(struct device *d);
void begin_recovery(struct device *d);
void end_recovery(struct device *d);
void spawn_server(struct device *d, unsigned int nr_fetch);
void reap_server(struct device *d);

/* ---- buffers ---- */
void step_register(struct device *d);
void step_register_wrong(struct device *d);
void step_unregister(struct device *d);
void step_unregister_many(struct device *d);
void step_list(struct device *d);
void step_storm(struct device *d);
/* Registers @nr pages from @first of @view; the index or an errno. */
int register_pages(struct device *d, enum view view, unsigned int first, unsigned int nr,
		   uint32_t flags);
int find_used(const struct device *d); /* some buffer, or -1 */
void forget_buffer(struct device *d, unsigned int index);
unsigned long nr_registered_pages(void);
long pinned_pages(void);

static inline bool is_foreign(const struct buffer *b)
{
	return b->pages[0] >= NR_PAGES;
}

/* ---- requests ---- */
struct request {
	struct device *d;
	bool is_write;
	bool of_owner; /* from its memory, where @iov is */
	off_t at;
	struct iovec iov[4];
	int nr_iov;
	size_t bytes;
	ssize_t result; /* or an errno */
	pthread_t thread;
};
void step_request(struct device *d);
/* One, of a live device, which must go well. */
const struct request *request_somewhere(struct device *d);
void step_unregister_held(struct device *d);
void step_kill_held(struct device *d);
void remember_arena(void);

/* What the driver must do with a request, by what is registered. */
enum outcome outcome_of(const struct device *d, const struct request *r);
void check_handed(const struct device *d, const struct request *r);

/* ---- another process, whose private memory is registered where it is ---- */
void step_register_foreign(struct device *d);
void step_change_foreign(struct device *d);
void step_change_held(struct device *d);
void step_hints(struct device *d);
/* Processes for it, before there are devices that they could have open. */
void make_owners(void);
void end_owners(void);
/* A request of the owner's; false: there is no owner. */
bool make_owner_request(struct request *r);
void fill_owner(const struct request *r);
void issue_of_owner(struct request *r);
void check_owner(const struct request *r);
unsigned int owner_page_at(const uint8_t *p);
/* What has ended has been told, and nothing else has ended. */
void check_foreign(struct device *d);

/* ---- the server's process ---- */
__attribute__((noreturn)) void serve(struct device *d);

#endif
