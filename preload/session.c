/* SPDX-License-Identifier: MIT */
/*
 * session.c - connect, prove access, hand over the arenas.
 *
 * One thread at a time works on sessions; another one that opens a file
 * meanwhile waits for it, no longer than the deadline.  The socket is
 * checked before each use, because programs close descriptors that they do
 * not know; then the session is lost, and made anew at the next open.
 */
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "ahead.h"
#include "blocks.h"
#include "common/log.h"
#include "common/wire.h"
#include "config.h"
#include "legacy.h"
#include "lock.h"
#include "shared.h"
#include "shim.h"
#include "stats.h"
#include "sys.h"
#include "talk.h"

#define INDEX_PENDING (-1) /* an answer is to come, and worth waiting for */
#define INDEX_LATE (-2)	   /* an answer is to come, and was waited for already */
#define INDEX_NONE (-3)	   /* refused, or the server's own affair */
#define LOCK_MS 20	   /* to look at an arena; then it is looked at later */

struct session {
	bool used;
	bool live;
	bool legacy;
	bool late; /* it did not answer in time, and is not waited for until it does */
	unsigned int device;
	int fd; /* live and not legacy: the connection */
	dev_t dev;
	ino_t ino;
	uint32_t seq;
	uint32_t hello_seq;   /* of the HELLO whose answer is to come; 0: none */
	uint32_t scan_seq;    /* of the SCAN whose answer is to come; 0: none */
	unsigned int scanned; /* shared_generation() that the server knows */
	long long retry_at;   /* not live: when to try again, ms */
	struct handed {
		uint64_t id;  /* of the arena that was in this slot; 0: none sent */
		uint32_t seq; /* of its ADD */
		int index;    /* what the server called it, or INDEX_* */
	} sent[ARENAS_MAX];
};

static struct session sessions[SESSIONS_MAX];
static atomic_uint nr_live;
static atomic_flag busy = ATOMIC_FLAG_INIT;
static atomic_bool missed; /* arenas came or went while busy: see to it afterwards */

bool session_armed(void)
{
	return atomic_load_explicit(&nr_live, memory_order_relaxed) != 0;
}

static void lose(struct session *s)
{
	if (!s->live)
		return;
	s->live = false;
	s->retry_at = 0;
	memset(s->sent, 0, sizeof(s->sent));
	atomic_fetch_sub(&nr_live, 1);
	stat_add(STAT_SESSION_LOST, 1);
	if (!s->legacy && sys_fd_is(s->fd, s->dev, s->ino))
		sys_close(s->fd);
}

static void note_hello(struct session *s, const struct wire_reply *reply)
{
	s->hello_seq = 0;
	if (!reply->status)
		return;
	stat_add(STAT_REFUSED, 1);
	stats_last_refusal(reply->reason);
	log_line(LOG_INFO, "/dev/ublkb%u: the server refused us: %s", s->device,
		 wire_reason_text(reply->reason));
	lose(s);
	s->retry_at = sys_now_ms() + SESSION_RETRY_MS;
}

static void note_reply(struct session *s, const struct wire_reply *reply)
{
	if (s->late)
		stat_add(STAT_LATE, 1);
	s->late = false;
	if (reply->type == WIRE_HELLO && reply->seq == s->hello_seq)
		note_hello(s, reply);
	if (reply->type == WIRE_SCAN && reply->seq == s->scan_seq)
		s->scan_seq = 0;
	if (reply->type != WIRE_ADD)
		return;
	for (unsigned int i = 0; i < ARENAS_MAX; i++)
		if (s->sent[i].id && s->sent[i].seq == reply->seq)
			s->sent[i].index = reply->status ? INDEX_NONE : (int)reply->index;
	stat_add(reply->status ? STAT_ARENAS_REFUSED : STAT_ARENAS_SENT, 1);
	if (reply->status) {
		stats_last_refusal(reply->reason);
		log_line(LOG_INFO, "an arena was refused: %s", wire_reason_text(reply->reason));
	}
}

/* Answers that have come by now; never waits. */
static void drain(struct session *s)
{
	struct wire_reply reply;
	int ret;

	while (s->live && (ret = talk_read_reply(s->fd, 0, &reply)) == 0)
		note_reply(s, &reply);
	if (ret != -ETIMEDOUT)
		lose(s);
}

static bool usable(struct session *s)
{
	if (!s->live)
		return false;
	if (s->legacy)
		return true;
	if (!sys_fd_is(s->fd, s->dev, s->ino))
		lose(s);
	else
		drain(s);
	return s->live;
}

/* ---- handing over ---- */

static int send_add(struct session *s, const struct arena_view *v, int fd)
{
	struct wire_request req;

	wire_request_init(&req, WIRE_ADD, ++s->seq);
	req.offset = v->offset;
	req.length = v->len;
	return wire_send(s->fd, &req, sizeof(req), fd);
}

static void send_remove(struct session *s, struct handed *sent)
{
	struct wire_request req;

	wire_request_init(&req, WIRE_REMOVE, ++s->seq);
	req.index = (uint32_t)sent->index;
	if (wire_send(s->fd, &req, sizeof(req), -1))
		lose(s);
	*sent = (struct handed){ .id = 0 };
}

/*
 * Returns 0 when it has been handed over, also when the server refused it, or when
 * its answer comes too late to be read: it will then be registered all the same.
 */
static int send_legacy(struct session *s, int memfd)
{
	long long patience = s->late ? 0 : (long long)config.connect_ms;
	int32_t index = -1;
	int ret = legacy_offer(s->device, memfd, sys_now_ms() + patience, &index);

	if (ret == -ETIMEDOUT) {
		/* Waited for once: the server is slow, and the program is not to be. */
		stat_add(STAT_DEADLINE, !s->late);
		s->late = true;
		return 0;
	}
	if (ret == -ECONNREFUSED || ret == -ENOENT)
		stats_no_server(s->device);
	else
		stat_add(ret || index < 0 ? STAT_ARENAS_REFUSED : STAT_ARENAS_SENT, 1);
	return ret;
}

/*
 * An arena is offered once a session, and a server that does not answer is
 * left alone for a while: else each open would wait for it anew.
 */
static void hand_over(struct session *s, struct handed *sent, const struct arena_view *v, int fd)
{
	int ret = s->legacy ? send_legacy(s, fd) : send_add(s, v, fd);

	if (ret) {
		lose(s);
		s->retry_at = sys_now_ms() + SESSION_RETRY_MS;
		return;
	}
	*sent = (struct handed){ .id = v->id,
				 .seq = s->seq,
				 .index = s->legacy ? INDEX_NONE : INDEX_PENDING };
}

/* Nothing is held while others are talked to: so with a descriptor of our own. */
static void offer(struct session *s, struct handed *sent, const struct arena_view *v)
{
	int fd;

	/* The older protocol knows whole files only, which mappings are a part of. */
	if (s->legacy && v->region)
		return;
	fd = memfile_duplicate(&v->file);
	if (fd < 0)
		return;
	hand_over(s, sent, v, fd);
	sys_close(fd);
}

/* The server's list becomes what there is: first what is no more, then what is new. */
static void reconcile_slot(struct session *s, struct handed *sent, const struct arena_view *v)
{
	if (sent->id && sent->id != v->id) {
		if (sent->index >= 0)
			send_remove(s, sent);
		else if (sent->index == INDEX_NONE)
			sent->id = 0;
		else if (sent->index == INDEX_PENDING)
			missed = true; /* only the answer says what it is called */
	}
	if (v->id && !sent->id && s->live)
		offer(s, sent, v);
}

static void reconcile(struct session *s)
{
	static struct arena_view views[ARENAS_MAX]; /* of the one who is busy */

	if (!blocks_lock_within(LOCK_MS)) {
		missed = true;
		return;
	}
	for (unsigned int i = 0; i < ARENAS_MAX; i++)
		arena_view(i, &views[i]);
	lock_drop(); /* what came meanwhile, the next one sees to */
	for (unsigned int i = 0; i < ARENAS_MAX && s->live; i++)
		reconcile_slot(s, &s->sent[i], &views[i]);
}

static unsigned int nr_pending(const struct session *s)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < ARENAS_MAX; i++)
		nr += s->sent[i].id && s->sent[i].index == INDEX_PENDING;
	return nr;
}

static void stop_waiting(struct session *s)
{
	stat_add(STAT_DEADLINE, 1);
	s->scan_seq = 0;
	for (unsigned int i = 0; i < ARENAS_MAX; i++)
		if (s->sent[i].index == INDEX_PENDING)
			s->sent[i].index = INDEX_LATE;
}

/* At memory that the program itself shares. */
static void ask_to_look(struct session *s)
{
	struct wire_request req;

	wire_request_init(&req, WIRE_SCAN, ++s->seq);
	s->scan_seq = s->seq;
	s->scanned = shared_generation();
	if (wire_send(s->fd, &req, sizeof(req), -1))
		lose(s);
	else
		stat_add(STAT_SCANS, 1);
}

/* -ETIMEDOUT: some are still to come. */
static int wait_for_answers(struct session *s, long long deadline)
{
	struct wire_reply reply;

	while (s->live && !s->late && (nr_pending(s) || s->scan_seq)) {
		int ret = talk_read_reply(s->fd, deadline, &reply);

		if (ret == -ETIMEDOUT)
			return ret;
		if (ret)
			lose(s);
		else
			note_reply(s, &reply);
	}
	return 0;
}

/*
 * Also the answers to what was sent before are waited for: a buffer allocated
 * just before the open is as good as registered when the open returns.
 */
static void hand_over_all(struct session *s)
{
	reconcile(s);
	if (shared_generation() != s->scanned && s->live && !s->legacy)
		ask_to_look(s);
	if (wait_for_answers(s, sys_now_ms() + (long long)config.connect_ms))
		stop_waiting(s);
}

/* In an allocation: the answers are read when they are needed.  Servers of the older
 * protocol are waited for, so they get theirs at the next open. */
static void reconcile_all(void)
{
	for (unsigned int i = 0; i < SESSIONS_MAX; i++)
		if (sessions[i].used && usable(&sessions[i]) && !sessions[i].legacy)
			reconcile(&sessions[i]);
}

static void arenas_changed(void)
{
	int saved = errno;

	if (!session_armed() || shim.owner != sys_getpid())
		return;
	/* First: whoever is busy now looks at it when done. */
	missed = true;
	for (int i = 0; i < 3 && missed && !atomic_flag_test_and_set(&busy); i++) {
		missed = false;
		reconcile_all();
		atomic_flag_clear(&busy);
	}
	errno = saved;
}

static void fresh_block(void *p, size_t len)
{
	if (session_armed())
		ahead_block(p, len);
}

const struct blocks_events blocks_events = {
	.arenas_changed = arenas_changed,
	.fresh_block = fresh_block,
};

/* ---- arming ---- */

static struct session *find_session(unsigned int device)
{
	struct session *spare = NULL;

	for (unsigned int i = 0; i < SESSIONS_MAX; i++) {
		if (sessions[i].used && sessions[i].device == device)
			return &sessions[i];
		if (!sessions[i].used && !spare)
			spare = &sessions[i];
	}
	if (spare)
		*spare = (struct session){ .used = true, .device = device, .fd = -1 };
	return spare;
}

/*
 * A server that does not answer in time is taken at its word later: what is sent
 * behind the HELLO it looks at in that order, so if it accepts us all is registered
 * by then, and if not, nothing was.
 */
static int say_hello(struct session *s, int proof, long long deadline)
{
	struct wire_request req;
	struct wire_reply reply;
	int ret;

	wire_request_init(&req, WIRE_HELLO, ++s->seq);
	req.pid = (uint32_t)sys_getpid();
	s->hello_seq = req.seq;
	ret = wire_send(s->fd, &req, sizeof(req), proof);
	if (!ret)
		ret = talk_read_reply(s->fd, deadline, &reply);
	if (ret == -ETIMEDOUT) {
		stat_add(STAT_DEADLINE, 1);
		s->late = true;
		return 0;
	}
	if (ret || reply.type != WIRE_HELLO) {
		stat_add(STAT_REFUSED, 1);
		return ret ? ret : -EPROTO;
	}
	note_hello(s, &reply);
	return reply.status;
}

static int greet(struct session *s, int proof, long long deadline)
{
	struct stat st;
	int ret = sys_fstat(s->fd, &st);

	s->late = false;
	if (ret == 0)
		ret = say_hello(s, proof, deadline);
	if (ret) {
		sys_close(s->fd);
		return ret;
	}
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	return 0;
}

static void establish(struct session *s, int proof)
{
	long long now = sys_now_ms();
	long long deadline = now + (long long)config.connect_ms;

	if (now < s->retry_at)
		return;
	s->retry_at = now + SESSION_RETRY_MS;
	s->fd = talk_connect(config.socket_dir, s->device, SOCK_SEQPACKET, deadline);
	if (s->fd == -EAGAIN) {
		stat_add(STAT_DEADLINE, 1);
		return;
	}
	s->legacy = s->fd < 0 && legacy_there(s->device);
	if (s->fd < 0 && !s->legacy) {
		stats_no_server(s->device);
		log_line(LOG_INFO, "/dev/ublkb%u: no server at %s: error %d", s->device,
			 config.socket_dir, s->fd);
		return;
	}
	if (!s->legacy && greet(s, proof, deadline))
		return;
	s->live = true;
	s->late = s->late && !s->legacy;
	s->scan_seq = s->scanned = 0;
	memset(s->sent, 0, sizeof(s->sent));
	atomic_fetch_add(&nr_live, 1);
	stat_add(STAT_ARMED, 1);
	if (s->legacy)
		stat_add(STAT_LEGACY, 1);
}

/* A program that opens first and allocates then has its first arena ready and
 * registered by the time it asks for memory. */
static void ensure_arena(void)
{
	if (!blocks_lock_within(LOCK_MS))
		return;
	blocks_ensure_arena();
	blocks_unlock();
}

static void arm(unsigned int device, int proof)
{
	struct session *s = find_session(device);

	if (!s)
		return; /* SESSIONS_MAX disks: the rest is copied */
	if (!usable(s))
		establish(s, proof);
	if (!s->live)
		return;
	if (shim.on && !shim.no_ahead)
		ensure_arena();
	ahead_prepare();
	hand_over_all(s);
}

/* What other threads made while we were busy. */
static void send_missed(void)
{
	/* Not for ever: what an answer is needed for may take until it comes. */
	for (int tries = 0;
	     tries < 3 && atomic_exchange(&missed, false) && !atomic_flag_test_and_set(&busy);
	     tries++) {
		for (unsigned int i = 0; i < SESSIONS_MAX; i++)
			if (sessions[i].used && usable(&sessions[i]))
				hand_over_all(&sessions[i]);
		atomic_flag_clear(&busy);
	}
}

/*
 * Another thread may be arming for the same disk right now; its end is worth
 * waiting for, because this thread's I/O would be copied until then.
 */
static bool become_busy(void)
{
	long long deadline = sys_now_ms() + (long long)config.connect_ms;

	/* A signal handler that opens a file while its thread allocates. */
	if (lock_held_here())
		return false;
	while (atomic_flag_test_and_set(&busy)) {
		if (sys_now_ms() >= deadline) {
			stat_add(STAT_DEADLINE, 1);
			missed = true;
			return false;
		}
		sys_sleep_us(200);
	}
	return true;
}

void session_offer_memory(void)
{
	int saved = errno;

	if (!session_armed() || shim.owner != sys_getpid())
		return;
	missed = true;
	if (become_busy()) {
		atomic_flag_clear(&busy);
		send_missed();
	}
	errno = saved;
}

void session_arm(unsigned int device, int proof)
{
	int saved = errno;

	/* In a vfork child the descriptors are its own, but this memory is not. */
	if (!shim_mark_owner() || shim.owner != sys_getpid() || !become_busy())
		return;
	arm(device, proof);
	atomic_flag_clear(&busy);
	send_missed();
	errno = saved;
}

void session_forget(void)
{
	for (unsigned int i = 0; i < SESSIONS_MAX; i++) {
		struct session *s = &sessions[i];

		if (s->live && !s->legacy && sys_fd_is(s->fd, s->dev, s->ino))
			sys_close(s->fd);
		*s = (struct session){ .fd = -1 };
	}
	nr_live = 0;
	atomic_flag_clear(&busy);
}
