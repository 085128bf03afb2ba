/* SPDX-License-Identifier: MIT */
/*
 * What a server tells its keeper, at every moment at which it may die.
 *
 * Buffers are added, removed and given up at random, with a driver that takes its time and
 * gives the lowest free index.  The history of what the keeper was told and what the driver did
 * is kept.  Then a server dies after each step of it: a successor gets the records of that
 * moment, and a driver in which each command under way has happened, or has not.  And its keeper
 * dies with it, which has not read all yet: a successor gets what the service manager has of an
 * earlier moment, and the same driver.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "server/life/worker.h"
#include "server/memory/buffers.h"
#include "tests/unit/cmocka_all.h"

#define PAGE 4096ULL
#define FILES 3
#define FILE_PAGES 8
#define CLIENTS 3
#define INDICES 64
#define PENDING 32
#define STEPS 60
#define HISTORY 4096
#define SEEDS 6
#define LINGER 700 /* ms: longer than a step of a life, and no multiple of it */
#define UNREAD_MAX 24   /* steps that a keeper is behind */
#define FORGOTTEN 30000 /* ms, after which nothing is held that nobody wants */

/* ---- the driver ---- */

struct entry {
	bool used;
	uint64_t len;
	uint64_t pages[FILE_PAGES]; /* what they are: the first word of each */
};

struct command {
	void *cookie;
	bool unregister;
	unsigned int index; /* to unregister */
	struct entry entry; /* to register */
	bool done;	    /* but not answered yet */
	int res;
};

struct driver {
	struct entry table[INDICES];
	struct command pending[PENDING];
	unsigned int nr;
};

static struct driver driver;

static struct entry entry_of(const void *base, uint64_t len)
{
	struct entry e = { .used = true, .len = len };

	for (unsigned int i = 0; i < len / PAGE; i++)
		memcpy(&e.pages[i], (const char *)base + i * PAGE, sizeof(e.pages[i]));
	return e;
}

static void carry_out(struct driver *d, struct command *c)
{
	unsigned int index = c->index;

	if (c->done)
		return;
	c->done = true;
	if (c->unregister) {
		c->res = d->table[index].used ? 0 : -ENOENT;
		d->table[index].used = false;
		return;
	}
	for (index = 0; d->table[index].used; index++)
		assert_true(index + 1 < INDICES);
	d->table[index] = c->entry;
	c->res = (int)index;
}

/* ---- history ---- */

struct event {
	enum { TOLD, ASKED, CARRIED_OUT, ANSWERED } what;
	struct vault_message message; /* TOLD */
	int fd;			      /* TOLD, or -1 */
	struct command command;	      /* ASKED */
	unsigned int nr;	      /* CARRIED_OUT, ANSWERED: place in the list */
};

static struct event history[HISTORY];
static unsigned int nr_events;
static int keeper;

static struct event *note(int what)
{
	assert_true(nr_events < HISTORY);
	history[nr_events] = (struct event){ .fd = -1 };
	history[nr_events].what = what;
	return &history[nr_events++];
}

static void read_vault(void)
{
	struct vault_message m;
	int fd;

	while (vault_receive(keeper, &m, &fd) == 1) {
		struct event *e = note(TOLD);

		e->message = m;
		e->fd = fd;
	}
}

static void ask(const struct command *c)
{
	assert_true(driver.nr < PENDING);
	driver.pending[driver.nr++] = *c;
}

static bool recording;

static int fake_reg(void *arg, const struct uapi_shmem_buf_reg *reg, void *cookie)
{
	struct command c = { .cookie = cookie,
			     .entry = entry_of((const void *)(uintptr_t)reg->addr, reg->len) };

	(void)arg;
	ask(&c);
	if (recording) {
		read_vault();
		note(ASKED)->command = c;
	}
	return 0;
}

static int fake_unreg(void *arg, unsigned int index, void *cookie)
{
	struct command c = { .cookie = cookie, .unregister = true, .index = index };

	(void)arg;
	ask(&c);
	if (recording) {
		read_vault();
		note(ASKED)->command = c;
	}
	return 0;
}

static void no_answer(void *arg, void *client, uint32_t seq, int status, enum wire_reason why,
		      uint32_t number)
{
	(void)arg, (void)client, (void)seq, (void)status, (void)why, (void)number;
}

static void forget_pending(struct driver *d, unsigned int nr)
{
	memmove(&d->pending[nr], &d->pending[nr + 1], (d->nr - nr - 1) * sizeof(d->pending[0]));
	d->nr--;
}

static void finish(struct buffers *b, unsigned int nr)
{
	struct command c;

	if (recording)
		note(CARRIED_OUT)->nr = nr;
	carry_out(&driver, &driver.pending[nr]);
	c = driver.pending[nr];
	forget_pending(&driver, nr);
	if (recording)
		note(ANSWERED)->nr = nr;
	buffers_finished(b, c.cookie, c.res);
}

/* ---- a life ---- */

static long long now;
static uint64_t copied; /* requests: something is always left to find */
static char clients[CLIENTS];
static int files[FILES];

/* Time passes, whatever one does. */
static long long clock_now(void)
{
	return now++;
}

static struct buffers new_buffers(struct registry *registry, struct vault *vault)
{
	return (struct buffers){
		.registry = registry,
		.backend = { .reg = fake_reg, .unreg = fake_unreg },
		.answer = no_answer,
		.max_bytes = 1 << 30,
		.linger = LINGER,
		.vault = vault,
		.clock = clock_now,
	};
}

static uint32_t numbers[CLIENTS][STEPS]; /* of uses, by client */
static unsigned int nr_numbers[CLIENTS];

static void note_number(void *arg, void *client, uint32_t seq, int status, enum wire_reason why,
			uint32_t number)
{
	unsigned int c = (unsigned int)((char *)client - clients);

	(void)arg, (void)seq, (void)why;
	if (!status)
		numbers[c][nr_numbers[c]++] = number;
}

static void add(struct buffers *b, unsigned int c)
{
	uint64_t first = (uint64_t)(rand() % FILE_PAGES);
	struct buffer_request req = {
		.fd = files[rand() % FILES],
		.offset = first * PAGE,
		.len = (1 + (uint64_t)rand() % (FILE_PAGES - first)) * PAGE,
		.client = &clients[c],
		.owner = c + 1,
		.seq = (uint32_t)rand(),
	};
	enum wire_reason reason;

	assert_int_equal(buffers_add(b, &req, &reason), 0);
	worker_wait();
}

static void remove_one(struct buffers *b, unsigned int c)
{
	if (nr_numbers[c])
		assert_int_equal(buffers_remove(b, &clients[c], numbers[c][--nr_numbers[c]]), 0);
}

static void live(struct buffers *b)
{
	for (unsigned int step = 0; step < STEPS; step++) {
		unsigned int c = (unsigned int)rand() % CLIENTS;

		switch (rand() % 8) {
		case 0:
		case 1:
			add(b, c);
			break;
		case 2:
			remove_one(b, c);
			break;
		case 3:
			if (rand() % 3)
				break;
			buffers_forget_client(b, &clients[c]);
			nr_numbers[c] = 0;
			break;
		case 4:
			now += 300;
			buffers_tick(b, copied++);
			worker_wait();
			break;
		default:
			if (driver.nr)
				finish(b, (unsigned int)rand() % driver.nr);
		}
		read_vault();
	}
}

/* ---- after a death ---- */

struct kept {
	struct vault_record record;
	int fd;
};

struct moment {
	struct kept kept[HISTORY];
	unsigned int nr_kept;
	struct driver driver;
};

static void keep(struct moment *m, const struct event *e)
{
	unsigned int i = 0;

	while (i < m->nr_kept && m->kept[i].record.id != e->message.record.id)
		i++;
	if (e->message.op == VAULT_DROP) {
		if (i == m->nr_kept)
			return;
		memmove(&m->kept[i], &m->kept[i + 1], (m->nr_kept - i - 1) * sizeof(m->kept[0]));
		m->nr_kept--;
		return;
	}
	assert_int_equal(e->message.op, VAULT_PUT);
	if (i == m->nr_kept)
		m->kept[m->nr_kept++].fd = -1;
	m->kept[i].record = e->message.record;
	if (e->fd >= 0)
		m->kept[i].fd = e->fd;
}

static void happen(struct moment *m, const struct event *e)
{
	switch (e->what) {
	case TOLD:
		keep(m, e);
		break;
	case ASKED:
		m->driver.pending[m->driver.nr++] = e->command;
		break;
	case CARRIED_OUT:
		carry_out(&m->driver, &m->driver.pending[e->nr]);
		break;
	case ANSWERED:
		forget_pending(&m->driver, e->nr);
		break;
	}
}

static bool same(const struct buffer_view *view, const struct entry *e)
{
	struct entry ours = entry_of(view->base, view->len);

	return ours.len == e->len && memcmp(ours.pages, e->pages, sizeof(ours.pages)) == 0;
}

/*
 * What the driver may name is known, and is that memory; but for the one registration that was
 * under way, whose memory is copied: who does not know it must not have anything else there.
 */
static void check_published(const struct registry *registry, bool keeper_died)
{
	struct buffer_view view;
	unsigned int unknown = 0;

	for (unsigned int i = 0; i < INDICES; i++)
		if (driver.table[i].used && registry_view(registry, i, &view))
			assert_true(same(&view, &driver.table[i]));
		else
			unknown += driver.table[i].used;
	assert_true(unknown <= 1 || keeper_died);
}

static uint64_t page_name(unsigned int file, unsigned int page)
{
	return (uint64_t)(file + 1) << 32 | page;
}

static bool is_registered(uint64_t name)
{
	for (unsigned int i = 0; i < INDICES; i++)
		for (unsigned int p = 0; driver.table[i].used && p < driver.table[i].len / PAGE; p++)
			if (driver.table[i].pages[p] == name)
				return true;
	return false;
}

static bool is_anything_registered(void)
{
	for (unsigned int i = 0; i < INDICES; i++)
		if (driver.table[i].used)
			return true;
	return false;
}

static unsigned int number_of(int fd)
{
	uint64_t name;

	assert_int_equal(pread(fd, &name, sizeof(name), 0), sizeof(name));
	return (unsigned int)(name >> 32) - 1;
}

/* In whose registration the server died: copied from then on. */
static bool is_suspect(const struct moment *m, uint64_t file)
{
	for (unsigned int i = 0; i < m->nr_kept; i++) {
		const struct vault_record *r = &m->kept[i].record;

		if (r->kind == VAULT_FILE && r->id == file && r->file.suspect)
			return true;
		if (r->kind == VAULT_BUFFER && r->buffer.file == file &&
		    r->buffer.state == VAULT_REGISTERING)
			return true;
	}
	return false;
}

/* Exactly what the records want is registered. */
static void check_wanted(const struct moment *m)
{
	bool wanted[FILES][FILE_PAGES] = { 0 };
	bool suspect[FILES] = { 0 };

	for (unsigned int i = 0; i < m->nr_kept; i++) {
		const struct vault_record *r = &m->kept[i].record;
		unsigned int f = FILES;

		if (r->kind != VAULT_USE)
			continue;
		for (unsigned int j = 0; j < m->nr_kept; j++)
			if (m->kept[j].record.kind == VAULT_FILE && m->kept[j].record.id == r->use.file)
				f = number_of(m->kept[j].fd);
		if (f == FILES)
			continue;
		suspect[f] |= is_suspect(m, r->use.file);
		for (uint64_t p = r->use.offset / PAGE; p < (r->use.offset + r->use.len) / PAGE; p++)
			wanted[f][p] = true;
	}
	for (unsigned int f = 0; f < FILES; f++)
		for (unsigned int p = 0; p < FILE_PAGES; p++) {
			if (wanted[f][p] && !suspect[f])
				assert_true(is_registered(page_name(f, p)));
			if (!wanted[f][p])
				assert_false(is_registered(page_name(f, p)));
		}
}

static void restore(struct buffers *b, const struct moment *m)
{
	/* In order of age, as the keeper sends them. */
	for (unsigned int i = 0; i < m->nr_kept; i++) {
		const struct vault_record *r = &m->kept[i].record;
		int ret = r->kind == VAULT_USE
				  ? buffers_restore_use(b, r, &clients[r->use.client - 1], NULL)
				  : buffers_restore(b, r, m->kept[i].fd);

		assert_true(ret == 0 || ret == -ENOENT);
	}
}

static void pass_time(struct buffers *b, struct registry *registry, int ms, bool keeper_died)
{
	for (long long end = now + ms; now < end; now += 400) {
		while (driver.nr) {
			finish(b, (unsigned int)rand() % driver.nr);
			check_published(registry, keeper_died);
		}
		buffers_tick(b, copied++);
		worker_wait();
	}
}

/* Each at a time of its own, which may be while what was inherited is still held. */
static void all_leave(struct buffers *b, struct registry *registry, bool keeper_died)
{
	for (unsigned int c = 0; c < CLIENTS; c++) {
		buffers_forget_client(b, &clients[c]);
		pass_time(b, registry, rand() % 4000, keeper_died);
	}
	pass_time(b, registry, FORGOTTEN, keeper_died);
	assert_false(is_anything_registered());
	assert_int_equal(b->nr, 0);
	assert_null(b->first);
}

static void succeed(const struct moment *m, unsigned int carried_out, int patience,
		    bool keeper_died)
{
	static struct registry registry;
	struct buffers b = new_buffers(&registry, NULL);

	memset(&registry, 0, sizeof(registry));
	driver = m->driver;
	for (unsigned int i = 0; i < driver.nr; i++)
		if (carried_out >> i & 1)
			carry_out(&driver, &driver.pending[i]);
	driver.nr = 0; /* nobody hears of them any more */
	b.paused = true;
	restore(&b, m);
	check_published(&registry, keeper_died);
	b.paused = false;
	buffers_resume(&b, keeper_died ? INDICES : 0);
	worker_wait();
	pass_time(&b, &registry, patience, keeper_died);
	if (patience >= FORGOTTEN)
		check_wanted(m);
	all_leave(&b, &registry, keeper_died);
	buffers_close(&b);
}

static int by_id(const void *a, const void *b)
{
	uint64_t x = ((const struct kept *)a)->record.id;
	uint64_t y = ((const struct kept *)b)->record.id;

	return (x > y) - (x < y);
}

static void sort(struct moment *m)
{
	qsort(m->kept, m->nr_kept, sizeof(m->kept[0]), by_id);
}

/* What a keeper leaves with the service manager of what it has read: keeper_store.c. */
static void leave_what_is_stored(struct moment *ret, const struct moment *read)
{
	ret->nr_kept = 0;
	for (unsigned int i = 0; i < read->nr_kept; i++)
		if (read->kept[i].record.kind != VAULT_BUFFER)
			ret->kept[ret->nr_kept++] = read->kept[i];
	sort(ret);
}

static void die_after_each_step(void)
{
	static struct moment m, sorted, behind;
	unsigned int nr_read = 0;

	memset(&m, 0, sizeof(m));
	memset(&behind, 0, sizeof(behind));
	for (unsigned int i = 0; i < nr_events; i++) {
		happen(&m, &history[i]);
		sorted = m;
		sort(&sorted);
		succeed(&sorted, 0, FORGOTTEN, false);
		succeed(&sorted, (unsigned int)rand(), rand() % FORGOTTEN, false);
		if (m.driver.nr) {
			succeed(&sorted, ~0U, FORGOTTEN, false);
			succeed(&sorted, (unsigned int)rand(), FORGOTTEN, false);
		}
		while (nr_read + (unsigned int)rand() % UNREAD_MAX < i)
			happen(&behind, &history[nr_read++]);
		leave_what_is_stored(&sorted, &behind);
		succeed(&sorted, (unsigned int)rand(), FORGOTTEN, true);
	}
}

static void open_files(void)
{
	for (unsigned int f = 0; f < FILES; f++) {
		files[f] = memfd_create("records", MFD_CLOEXEC);
		for (unsigned int p = 0; p < FILE_PAGES; p++) {
			uint64_t name = page_name(f, p);
			char page[PAGE] = { 0 };

			memcpy(page, &name, sizeof(name));
			assert_int_equal(pwrite(files[f], page, PAGE, (off_t)(p * PAGE)), PAGE);
		}
	}
}

static void one_life(unsigned int seed)
{
	static struct registry registry;
	struct vault vault;
	struct buffers b;
	int socks[2];

	srand(seed);
	memset(&registry, 0, sizeof(registry));
	memset(&driver, 0, sizeof(driver));
	memset(nr_numbers, 0, sizeof(nr_numbers));
	nr_events = 0;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, socks), 0);
	vault = (struct vault){ .fd = socks[0] };
	keeper = socks[1];
	assert_int_equal(fcntl(keeper, F_SETFL, O_NONBLOCK), 0);
	b = new_buffers(&registry, &vault);
	b.answer = note_number;
	recording = true;
	live(&b);
	recording = false;
	die_after_each_step();
	print_message("seed %u: died after each of %u steps\n", seed, nr_events);
	/* The life itself ends with its device. */
	b.vault = NULL;
	buffers_close(&b);
	for (unsigned int i = 0; i < nr_events; i++)
		if (history[i].fd >= 0)
			close(history[i].fd);
	vault_close(&vault);
	close(keeper);
}

static void a_server_may_die_after_any_step(void **state)
{
	(void)state;
	open_files();
	for (unsigned int seed = 1; seed <= SEEDS; seed++)
		one_life(seed);
	for (unsigned int f = 0; f < FILES; f++)
		close(files[f]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_server_may_die_after_any_step),
	};

	log_init("test", LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
