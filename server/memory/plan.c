/* SPDX-License-Identifier: MIT */
/*
 * plan.c - from wishes to slices.
 *
 * A look asks which pages exist of what is wanted.  Each run of them that no slice covers yet
 * becomes a slice of its own, or one together with its neighbours: registering costs
 * something, on the stock driver a stop of the whole device, but I/O that
 * spans two slices is copied.  So a neighbour is taken in when it is no longer than what is new
 * (each byte is then registered only a few times, however memory grows), or short.
 *
 * The next look comes when the device has copied requests meanwhile, at first soon, and ever
 * later while nothing new is found.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/log.h"
#include "server/life/worker.h"
#include "buffers_internal.h"
#include "resident.h"

#define SHORT_SLICE (16ULL << 20) /* bytes; always joined to what comes beside it */
#define SLICE_BYTES_MAX (1ULL << 30)
#define QUICK_LOOK (4ULL << 20) /* bytes to look at without a thread: some 1000 pages */
#define SLICES_AT_ONCE 64	/* made by one look; the next is soon */
#define GAPS_LEFT_MAX 256	/* by one look: they may be another's affair, but take time */
/* What nobody wants is kept for a while, if it is little: who adds and removes the same
 * memory again and again would have the device stopped each time. */
#define LINGER_SLICE_MAX (1ULL << 20) /* bytes */
#define LINGER_MAX (16ULL << 20)      /* bytes, of all together */
#define FIRST_INTERVAL 250	      /* ms */
#define DUE_INTERVAL 1000	      /* ms; when it had to wait for its turn */
#define LAST_INTERVAL 10000	      /* ms */

/* ---- what is wanted ---- */

static int by_offset(const void *a, const void *b)
{
	uint64_t x = ((const struct memory_range *)a)->offset;
	uint64_t y = ((const struct memory_range *)b)->offset;

	return (x > y) - (x < y);
}

/* The ranges that uses want, joined and in order; NULL: no memory, or none. */
static struct memory_range *wanted_ranges(const struct file *file, unsigned int *ret_nr)
{
	struct memory_range *ranges;
	unsigned int nr = 0;
	unsigned int kept = 0;

	for (const struct use *use = file->uses; use; use = use->next)
		nr++;
	ranges = calloc(nr ? nr : 1, sizeof(*ranges));
	if (!ranges)
		return NULL;
	nr = 0;
	for (const struct use *use = file->uses; use; use = use->next)
		ranges[nr++] = (struct memory_range){ use->offset, use->len };
	qsort(ranges, nr, sizeof(*ranges), by_offset);
	for (unsigned int i = 0; i < nr; i++) {
		struct memory_range *last = kept ? &ranges[kept - 1] : NULL;
		uint64_t end = ranges[i].offset + ranges[i].len;

		if (!last || ranges[i].offset > last->offset + last->len)
			ranges[kept++] = ranges[i];
		else if (end > last->offset + last->len)
			last->len = end - last->offset;
	}
	*ret_nr = kept;
	return ranges;
}

/* ---- neighbours ---- */

/*
 * Also what is being registered right now: a buffer of which half existed then would be copied for
 * as long as it lives.
 */
static bool pays(const struct slice *s, uint64_t beside)
{
	return s->view.len < SHORT_SLICE || s->view.len <= beside;
}

static struct slice *ending_at(const struct file *file, uint64_t at)
{
	struct slice *s = file->slices;

	while (s && !(is_covering(s) && slice_end(s) == at))
		s = s->next;
	return s;
}

static struct slice *beginning_at(const struct file *file, uint64_t at)
{
	struct slice *s = file->slices;

	while (s && !(is_covering(s) && s->offset == at))
		s = s->next;
	return s;
}

/* Let [*@start, *@end) grow over the neighbours that it pays to take in; how many. */
static unsigned int join(const struct file *file, uint64_t *start, uint64_t *end)
{
	unsigned int nr = 0;
	bool grew = true;

	while (grew) {
		struct slice *left = ending_at(file, *start);
		struct slice *right = beginning_at(file, *end);

		grew = false;
		if (left && pays(left, *end - *start) && *end - left->offset <= SLICE_BYTES_MAX) {
			*start = left->offset;
			grew = true;
			nr++;
		}
		if (right && pays(right, *end - *start) &&
		    slice_end(right) - *start <= SLICE_BYTES_MAX) {
			*end = slice_end(right);
			grew = true;
			nr++;
		}
	}
	return nr;
}

/* What @by takes the place of. */
static void retire_within(struct buffers *b, struct file *file, const struct slice *by)
{
	struct slice *next;

	for (struct slice *s = file->slices; s; s = next) {
		next = s->next;
		if (s != by && is_covering(s) && s->offset >= by->offset &&
		    slice_end(s) <= slice_end(by))
			slice_retire(b, s);
	}
}

/* ---- filling gaps ---- */

/* There is no room for something: what is only kept for a while goes.  True: there was some. */
static bool end_lingering(struct buffers *b)
{
	bool any = false;

	for (struct file *file = b->first; file; file = file->next)
		for (struct slice *next, *s = file->slices; s; s = next) {
			next = s->next;
			if (!s->idle || s->state != LIVE)
				continue;
			slice_retire(b, s);
			any = true;
		}
	return any;
}

/*
 * Of those who want some of it, and whose turn it can be, who has most room; *@ret_room: no
 * more than the device has.
 */
static struct account *choose_payer(const struct buffers *b, const struct file *file, uint64_t at,
				    uint64_t end, uint64_t *ret_room)
{
	uint64_t device = b->max_bytes > b->bytes ? b->max_bytes - b->bytes : 0;
	struct account *payer = NULL;
	uint64_t most = 0;

	for (const struct use *use = file->uses; use; use = use->next) {
		uint64_t room = account_room(use->account);

		if (use->account && use->account->waits)
			continue;
		if (use->offset < end && use->offset + use->len > at && room > most) {
			most = room;
			payer = use->account;
		}
	}
	if (b->nr >= BUFFERS_SLICES_MAX)
		device = 0;
	*ret_room = most < device ? most : device;
	return payer;
}

static uint64_t page_of(const struct file *file)
{
	return file->huge_page ? file->huge_page : 4096;
}

static int make_slice(struct buffers *b, struct file *file, uint64_t start, uint64_t end,
		      struct account *payer)
{
	struct slice *s;
	int ret;

	ret = slice_new(b, file, start, end - start, !file_wants_writable(file), &s);
	if (ret)
		return ret;
	retire_within(b, file, s);
	slice_set_account(s, payer);
	slice_register(b, s);
	return 0;
}

/* Whoever could pay for a gap cannot now; for another of this file somebody else may. */
static bool leave_gap(const struct buffers *b, struct file *file)
{
	bool anybody = false;

	for (const struct use *use = file->uses; use && !anybody; use = use->next)
		anybody = !use->account || (!use->account->waits && account_room(use->account));
	if (file->left++ == GAPS_LEFT_MAX)
		file->due = true;
	return anybody && file->left <= GAPS_LEFT_MAX && b->nr < BUFFERS_SLICES_MAX &&
	       b->bytes < b->max_bytes;
}

/*
 * Cover [*@next, @end), or as much of it as may be now; when nobody can pay for it, *@next is
 * @end.  False: no more of this file, now.
 */
static bool fill_gap(struct buffers *b, struct file *file, uint64_t *next, uint64_t end)
{
	uint64_t at = *next;
	uint64_t start = at;
	uint64_t room;
	struct account *payer = choose_payer(b, file, at, end, &room);
	unsigned int joined;
	int ret;

	room -= room % page_of(file);
	if (end - at > room && !file->waits) {
		if (end_lingering(b))
			file->due = true;
		else
			file->over_budget = true;
	}
	if (!room) {
		*next = end;
		return leave_gap(b, file);
	}
	if (end - at > room)
		end = at + room;
	if (end - at > SLICE_BYTES_MAX)
		end = at + SLICE_BYTES_MAX;
	/* The control thread has others to answer, too. */
	if (file->made++ == SLICES_AT_ONCE) {
		file->due = true;
		return false;
	}
	joined = join(file, &start, &end);
	if (payer && !account_take_turn(payer, 1 + joined, b->cost ? b->cost : PACE_COST_FIRST,
					buffers_now(b))) {
		file->due = file->waits = payer->waits = true;
		return true; /* perhaps somebody else */
	}
	ret = make_slice(b, file, start, end, payer);
	if (ret) {
		file->refused = ret;
		file->why = WIRE_NO_MEMORY;
	}
	return !ret;
}

static struct slice *first_covering_behind(const struct file *file, uint64_t at)
{
	struct slice *s = file->slices;

	while (s && !(is_covering(s) && slice_end(s) > at))
		s = s->next;
	return s;
}

/* Returns whether to go on; *@found: something was missing. */
static bool cover_run(struct buffers *b, struct file *file, const struct memory_range *run,
		      bool *found)
{
	uint64_t end = run->offset + run->len;
	uint64_t at = run->offset;

	while (at < end) {
		const struct slice *s = first_covering_behind(file, at);

		if (s && s->offset <= at) {
			at = slice_end(s);
			continue;
		}
		*found = true;
		if (!fill_gap(b, file, &at, s && s->offset < end ? s->offset : end))
			return false;
	}
	return true;
}

/* ---- looking ---- */

static void schedule(struct buffers *b, struct file *file, bool found)
{
	if (found && !file->refused && !file->refusals && !file->over_budget)
		file->interval = FIRST_INTERVAL;
	else if (file->interval < LAST_INTERVAL / 2)
		file->interval = file->interval ? file->interval * 2 : FIRST_INTERVAL;
	else
		file->interval = LAST_INTERVAL;
	file->looked_at = buffers_now(b);
	file->next_look = file->looked_at + (file->due ? DUE_INTERVAL : file->interval);
	file->copied = b->copied;
}

static void plan(struct buffers *b, struct file *file, const struct resident *r)
{
	bool found = false;

	file->due = file->over_budget = file->waits = false;
	file->made = file->left = 0;
	file->refused = 0;
	for (const struct use *use = file->uses; use; use = use->next)
		if (use->account)
			use->account->waits = false;
	for (unsigned int i = 0; i < r->nr; i++)
		if (!cover_run(b, file, &r->runs[i], &found))
			break;
	schedule(b, file, found);
}

/* A look at a file, on a thread of its user's: it takes time when there are many pieces. */
struct look {
	struct worker_job work; /* first */
	struct buffers *buffers;
	struct file *file; /* NULL: nobody wants it any more */
	struct memory_range *ranges;
	unsigned int nr;
	struct resident resident; /* with a descriptor of its own */
};

static void free_look(struct look *look)
{
	if (look->resident.fd >= 0)
		close(look->resident.fd);
	free(look->ranges);
	free(look);
}

static void run_look(struct worker_job *work)
{
	struct look *look = (struct look *)work;

	for (unsigned int i = 0; i < look->nr; i++)
		resident_look(&look->resident, look->ranges[i].offset, look->ranges[i].len);
}

static void finish_uses(struct file *file, int was)
{
	for (struct use *use = file->uses; use; use = use->next)
		if ((int)use->looked == was)
			use->looked = LOOKED;
}

static void take_look(struct worker_job *work)
{
	struct look *look = (struct look *)work;
	struct buffers *b = look->buffers;
	struct file *file = look->file;

	if (!file) {
		free_look(look);
		return;
	}
	file->look = NULL;
	if (!file->stale && !file->suspect)
		plan(b, file, &look->resident);
	if (!file->stale)
		finish_uses(file, BEING_LOOKED);
	free_look(look);
	if (file->uses && (file->stale || file->again))
		buffers_look(b, file);
	buffers_settle(b, file);
	buffers_ask(b);
	file->held--;
	buffers_put_file(b, file);
}

static struct look *new_look(struct buffers *b, struct file *file)
{
	struct look *look = calloc(1, sizeof(*look));

	if (!look)
		return NULL;
	*look = (struct look){
		.work = { .run = run_look, .done = take_look },
		.buffers = b,
		.file = file,
		.resident = { .fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 0),
			      .huge_page = file->huge_page },
	};
	look->ranges = wanted_ranges(file, &look->nr);
	if (look->ranges && look->resident.fd >= 0)
		return look;
	free_look(look);
	return NULL;
}

/* Not worth a thread, whatever is in it. */
static bool is_quick(const struct look *look)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < look->nr; i++)
		bytes += look->ranges[i].len;
	return !look->resident.huge_page && bytes <= QUICK_LOOK;
}

void buffers_look(struct buffers *b, struct file *file)
{
	struct look *look;

	if (file->look) {
		file->again = true;
		return;
	}
	file->again = file->stale = false;
	buffers_review(b, file);
	if (file->suspect) {
		finish_uses(file, NOT_LOOKED);
		buffers_settle(b, file);
		return;
	}
	look = new_look(b, file);
	if (!look) {
		/* Later; so long it is copied. */
		file->due = true;
		file->next_look = buffers_now(b) + LAST_INTERVAL;
		return;
	}
	for (struct use *use = file->uses; use; use = use->next)
		if (use->looked == NOT_LOOKED)
			use->looked = BEING_LOOKED;
	file->look = look;
	file->held++;
	if (!b->at_once && !is_quick(look) &&
	    worker_start(file->user, WORKER_LOOK, &look->work) == 0)
		return;
	run_look(&look->work);
	take_look(&look->work);
}

void buffers_cancel_look(struct file *file)
{
	if (!file->look)
		return;
	file->look->file = NULL;
	file->look = NULL;
	file->held--;
}

static uint64_t idle_bytes(const struct buffers *b)
{
	uint64_t bytes = 0;

	for (const struct file *file = b->first; file; file = file->next)
		for (const struct slice *s = file->slices; s; s = s->next)
			bytes += s->idle ? s->view.len : 0;
	return bytes;
}

/* Let @s be for a while, once. */
static bool linger(const struct buffers *b, struct slice *s, long long now)
{
	if (!b->linger || s->idle || s->state != LIVE || s->view.len > LINGER_SLICE_MAX ||
	    idle_bytes(b) + s->view.len > LINGER_MAX)
		return false;
	s->idle = true;
	s->held_until = now + b->linger;
	return true;
}

static void review_slice(struct buffers *b, struct slice *s, long long now)
{
	struct file *file = s->file;
	bool outdated = s->view.read_only && file_wants_writable(file);

	if (!outdated && file_wants_all(file, s->offset, s->view.len)) {
		s->idle = false;
		return;
	}
	if (s->held_until > now || (!outdated && linger(b, s, now))) {
		if (!file->review_at || file->review_at > s->held_until)
			file->review_at = s->held_until;
		return;
	}
	slice_retire(b, s);
	file->due = true; /* a part of it may still be wanted */
	file->next_look = 0;
}

void buffers_review(struct buffers *b, struct file *file)
{
	long long now = buffers_now(b);
	struct slice *next;

	/* Every slice that is held although nobody wants it has a review to come. */
	file->review_at = 0;
	for (struct slice *s = file->slices; s; s = next) {
		next = s->next;
		if (is_covering(s))
			review_slice(b, s, now);
	}
}

/* ---- by and by ---- */

static void sooner(long long *soonest, long long at)
{
	if (at < *soonest)
		*soonest = at;
}

static void tick_file(struct buffers *b, struct file *file, long long now, long long *soonest)
{
	if (file->review_at && file->review_at <= now)
		buffers_review(b, file);
	if (file->review_at)
		sooner(soonest, file->review_at);
	if (!file->uses || file->look || file->suspect || b->paused)
		return;
	if (file->next_look > now)
		sooner(soonest, file->next_look);
	else if (file->due || file->copied != b->copied)
		buffers_look(b, file);
	else
		b->waits = true;
}

int buffers_tick(struct buffers *b, uint64_t copied)
{
	long long now = buffers_now(b);
	long long soonest = now + 1000;
	struct file *next;

	b->copied = copied;
	b->waits = false;
	for (struct file *file = b->first; file; file = next) {
		next = file->next;
		file->held++;
		tick_file(b, file, now, &soonest);
		file->held--;
		buffers_put_file(b, file);
	}
	buffers_ask(b);
	return soonest > now ? (int)(soonest - now) : 0;
}
