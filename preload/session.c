/* SPDX-License-Identifier: MIT */
/*
 * session.c - connect, prove access, hand over the arenas.
 *
 * One thread at a time works on sessions; another one that opens a file
 * meanwhile waits for it, no longer than the deadline.  The socket is
 * checked before each use, because programs close descriptors that they do
 * not know; then the session is lost, and made anew at the next open.
 */
#include "session_internal.h"

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

#define HINT_BYTES (2UL << 20) /* that exist since the last hint, or */
#define HINTS_FREE 32U
#define HINT_MS 50 /* since then, for the next one */
#define LOCK_MS 20 /* to look at an arena; then it is looked at later */

static struct session sessions[SESSIONS_MAX];
static atomic_uint nr_live;
static atomic_flag busy = ATOMIC_FLAG_INIT;
atomic_bool session_missed; /* arenas came or went while busy: see to it afterwards */

bool session_armed(void)
{
	return atomic_load_explicit(&nr_live, memory_order_relaxed) != 0;
}

void session_lose(struct session *s)
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
	s->hints = (reply->features & WIRE_FEATURE_RESIDENT) != 0;
	if (!reply->status)
		return;
	stat_add(STAT_REFUSED, 1);
	stats_last_refusal(reply->reason);
	log_line(LOG_INFO, "/dev/ublkb%u: the server refused us: %s", s->device,
		 wire_reason_text(reply->reason));
	session_lose(s);
	s->retry_at = sys_now_ms() + SESSION_RETRY_MS;
}

void session_note_reply(struct session *s, const struct wire_reply *reply)
{
	bool again = false;

	if (s->late)
		stat_add(STAT_LATE, 1);
	s->late = false;
	if (reply->type == WIRE_HELLO && reply->seq == s->hello_seq)
		note_hello(s, reply);
	if (reply->type == WIRE_SCAN && reply->seq == s->scan_seq)
		s->scan_seq = 0;
	if (reply->type == WIRE_SCAN && reply->status == -EOPNOTSUPP)
		s->no_scans = true;
	if (reply->type != WIRE_ADD)
		return;
	for (unsigned int i = 0; i < ARENAS_MAX; i++)
		if (s->sent[i].id && s->sent[i].seq == reply->seq) {
			s->sent[i].index = reply->status ? INDEX_NONE : (int)reply->index;
			again = s->sent[i].again;
		}
	if (!again)
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
	int ret = -ETIMEDOUT;

	while (s->live && (ret = talk_read_reply(s->fd, 0, &reply)) == 0)
		session_note_reply(s, &reply);
	if (ret != -ETIMEDOUT)
		session_lose(s);
}

static bool usable(struct session *s)
{
	if (!s->live)
		return false;
	if (s->legacy)
		return true;
	if (!sys_fd_is(s->fd, s->dev, s->ino))
		session_lose(s);
	else
		drain(s);
	return s->live;
}

/* In an allocation: the answers are read when they are needed.  Servers of the older
 * protocol are waited for, so they get theirs at the next open. */
static void reconcile_all(void)
{
	for (unsigned int i = 0; i < SESSIONS_MAX; i++)
		if (sessions[i].used && usable(&sessions[i]) && !sessions[i].legacy)
			session_reconcile(&sessions[i]);
}

static void arenas_changed(void)
{
	int saved = errno;

	if (!session_armed() || shim.owner != sys_getpid())
		return;
	/* First: whoever is busy now looks at it when done. */
	session_missed = true;
	for (int i = 0; i < 3 && session_missed && !atomic_flag_test_and_set(&busy); i++) {
		session_missed = false;
		reconcile_all();
		atomic_flag_clear(&busy);
	}
	errno = saved;
}

/* Worth a message?  The first always is: a program that opens and then allocates its few
 * buffers.  A server looks by itself too, if later. */
static bool hint_is_due(size_t len)
{
	static atomic_size_t unsaid;
	static atomic_uint said;
	static _Atomic long long said_at;
	long long now = sys_now_ms();

	if (atomic_fetch_add(&unsaid, len) + len < HINT_BYTES && now - said_at < HINT_MS &&
	    said >= HINTS_FREE)
		return false;
	unsaid = 0;
	said_at = now;
	atomic_fetch_add(&said, 1);
	return true;
}

static void fresh_block(void *p, size_t len)
{
	int saved = errno;

	if (!session_armed() || shim.owner != sys_getpid() || !ahead_block(p, len) ||
	    !hint_is_due(len) || atomic_flag_test_and_set(&busy))
		return;
	for (unsigned int i = 0; i < SESSIONS_MAX; i++)
		if (sessions[i].used && !sessions[i].legacy && usable(&sessions[i]))
			session_send_resident(&sessions[i], arena_of(p));
	atomic_flag_clear(&busy);
	errno = saved;
}

const struct blocks_events blocks_events = {
	.armed = session_armed,
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
	s->no_scans = false;
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
	session_hand_over_all(s);
}

/* What other threads made while we were busy. */
static void send_missed(void)
{
	/* Not for ever: what an answer is needed for may take until it comes. */
	for (int tries = 0; tries < 3 && atomic_exchange(&session_missed, false) &&
			    !atomic_flag_test_and_set(&busy);
	     tries++) {
		for (unsigned int i = 0; i < SESSIONS_MAX; i++)
			if (sessions[i].used && usable(&sessions[i]))
				session_hand_over_all(&sessions[i]);
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
			session_missed = true;
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
	session_missed = true;
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
