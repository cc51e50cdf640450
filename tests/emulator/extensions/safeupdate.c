/*
 * Stand-in for safeupdate, which Supabase loads for the Data API's role: an UPDATE or DELETE without a WHERE is refused,
 * also as a part of WITH, and wherever it is run from. See safeupdate.py for how it is compiled.
 */
#include "postgres.h"

#include "fmgr.h"
#include "parser/analyze.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static bool enabled = true;
static post_parse_analyze_hook_type next_hook = NULL;

static void
require_where(const Query *query)
{
	ListCell   *cell;

	foreach(cell, query->cteList)
	{
		Node	   *part = lfirst_node(CommonTableExpr, cell)->ctequery;

		if (IsA(part, Query))
			require_where((const Query *) part);
	}
	if ((query->commandType == CMD_UPDATE || query->commandType == CMD_DELETE) && query->jointree->quals == NULL)
		ereport(ERROR,
				errcode(ERRCODE_CARDINALITY_VIOLATION),
				errmsg("%s requires a WHERE clause", query->commandType == CMD_UPDATE ? "UPDATE" : "DELETE"));
}

static void
after_analysis(ParseState *pstate, Query *query, JumbleState *jumble)
{
	if (enabled)
		require_where(query);
	if (next_hook)
		next_hook(pstate, query, jumble);
}

void
_PG_init(void)
{
	DefineCustomBoolVariable("safeupdate.enabled", "Refuse UPDATE and DELETE without a WHERE.", NULL,
							 &enabled, true, PGC_SUSET, 0, NULL, NULL, NULL);
	next_hook = post_parse_analyze_hook;
	post_parse_analyze_hook = after_analysis;
}
