/* SPDX-License-Identifier: MIT */
/*
 * session_offer.c - what a server should hold becomes what it is told to hold.
 *
 * By the one thread that works on sessions.  The lock of the memory is held only to look
 * what there is, never while somebody is talked to.
 */
#include "session_internal.h"

#include <errno.h>

#include "blocks.h"
#include "common/wire.h"
#include "config.h"
#include "legacy.h"
#include "lock.h"
#include "shared.h"
#include "stats.h"
#include "sys.h"
#include "talk.h"

#define LOCK_MS 20     /* to look at an arena; then it is looked at later */
#define AGAIN_FREE 32U /* opens that offer again what has grown, and */
#define AGAIN_MS 1000  /* one more each: who opens files all the time does not pay each time */

static int send_add(struct session *s, const struct arena_view *v, int fd)
{
	struct wire_request req;

	wire_request_init(&req, WIRE_ADD, ++s->seq);
	req.offset = v->offset;
	req.length = v->longest;
	return wire_send(s->fd, &req, sizeof(req), fd);
}

static void send_remove(struct session *s, struct handed *sent)
{
	struct wire_request req;

	wire_request_init(&req, WIRE_REMOVE, ++s->seq);
	req.index = (uint32_t)sent->index;
	if (wire_send(s->fd, &req, sizeof(req), -1))
		session_lose(s);
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
	/* Before the server looks: what comes into being meanwhile is then told of once more. */
	size_t resident = memfile_resident(&v->file, 0);
	int ret = s->legacy ? send_legacy(s, fd) : send_add(s, v, fd);

	if (ret) {
		session_lose(s);
		s->retry_at = sys_now_ms() + SESSION_RETRY_MS;
		return;
	}
	*sent = (struct handed){ .id = v->id,
				 .seq = s->seq,
				 .index = s->legacy ? INDEX_NONE : INDEX_PENDING,
				 .resident = resident };
}

/* Nothing is held while others are talked to: so with a descriptor of our own. */
static void offer(struct session *s, struct handed *sent, const struct arena_view *v)
{
	int fd;

	/* The older protocol knows whole files only, and may have all of them exist. */
	if (s->legacy && v->part)
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
			session_missed = true; /* only the answer says what it is called */
	}
	if (v->id && !sent->id && s->live)
		offer(s, sent, v);
}

void session_reconcile(struct session *s)
{
	static struct arena_view views[ARENAS_MAX]; /* of the one who is busy */

	if (!blocks_lock_within(LOCK_MS)) {
		session_missed = true;
		return;
	}
	for (unsigned int i = 0; i < ARENAS_MAX; i++)
		arena_view(i, &views[i]);
	lock_drop(); /* what came meanwhile, the next one sees to */
	for (unsigned int i = 0; i < ARENAS_MAX && s->live; i++)
		reconcile_slot(s, &s->sent[i], &views[i]);
}

static bool still_there(unsigned int slot, uint64_t id, struct arena_view *ret)
{
	if (!blocks_lock_within(LOCK_MS))
		return false;
	arena_view(slot, ret);
	blocks_unlock();
	return ret->id == id;
}

static bool may_offer_again(struct session *s)
{
	long long now = sys_now_ms();

	if (s->again_free < AGAIN_FREE)
		s->again_free++;
	else if (now - s->again_at < AGAIN_MS)
		return false;
	s->again_at = now;
	return true;
}

/*
 * More of what was sent before exists now, because we populated it or the program touched
 * it, and an open is to find it registered: a hint has no answer, so it is sent once
 * more, and then the first time is taken back.
 */
static void offer_again(struct session *s)
{
	for (unsigned int i = 0; i < ARENAS_MAX && s->live; i++) {
		struct handed *sent = &s->sent[i];
		struct handed before = *sent;
		struct arena_view v;

		if (!sent->id || sent->index < 0 || !still_there(i, sent->id, &v) ||
		    memfile_resident(&v.file, before.resident) == before.resident ||
		    !may_offer_again(s))
			continue;
		offer(s, sent, &v);
		if (!s->live || sent->seq == before.seq)
			continue;
		sent->again = true;
		send_remove(s, &before);
	}
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
		session_lose(s);
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
			session_lose(s);
		else
			session_note_reply(s, &reply);
	}
	return 0;
}

/*
 * Also the answers to what was sent before are waited for: a buffer allocated
 * just before the open is as good as registered when the open returns.  What another
 * thread had sent may have been looked at before this one touched it, and can be
 * offered again only when its answer has come: so twice.
 */
void session_hand_over_all(struct session *s)
{
	session_reconcile(s);
	if (shared_generation() != s->scanned && s->live && !s->legacy && !s->no_scans)
		ask_to_look(s);
	for (int i = 0; i < 2; i++) {
		if (!s->legacy)
			offer_again(s);
		if (wait_for_answers(s, sys_now_ms() + (long long)config.connect_ms)) {
			stop_waiting(s);
			return;
		}
	}
}

/* More of an arena exists than when it was sent: the server need not find out. */
void session_send_resident(struct session *s, const struct arena *a)
{
	const struct handed *sent = &s->sent[a - arenas];
	struct wire_request req;

	if (!s->hints || sent->id != a->id || sent->index < 0)
		return;
	wire_request_init(&req, WIRE_RESIDENT, ++s->seq);
	req.index = (uint32_t)sent->index;
	req.offset = a->offset;
	req.length = a->len;
	if (wire_send(s->fd, &req, sizeof(req), -1))
		session_lose(s);
}
